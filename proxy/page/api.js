// Calls of the gateway. Every path is relative, so that the page works behind a prefix.

/** The reply, or an Error with what the server says. */
export async function call(path, options) {
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("the gateway does not answer");
  }
  if (reply.ok) return reply;
  const text = await reply.text();
  let message = text.slice(0, 300) || reply.statusText;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Something in between answered, in words of its own.
  }
  const after = reply.headers.get("retry-after");
  throw new Error(`${reply.status}: ${message}${after ? ` (again in ${after} s)` : ""}`);
}

export const json = async (path, options) => (await call(path, options)).json();

/** Asks for a transcript of a file; `fields` are those of the API. */
export function transcribe(file, fields, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    for (const one of [value].flat()) if (one !== "") form.append(name, one);
  }
  form.append("file", file, file.name || "recording.webm");
  return call("v1/audio/transcriptions", { method: "POST", body: form, signal });
}

/** Asks for speech; the reply's body is audio as it is made. */
export function speak(body, signal) {
  const headers = { "content-type": "application/json" };
  return call("v1/audio/speech", { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** Has the browser save a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export const byId = (id) => document.getElementById(id);

/** Shows what goes on, or what went wrong. */
export function status(element, text, isError = false) {
  element.textContent = text;
  element.classList.toggle("error", isError);
}
