// Calls of the gateway. Every path is relative, so that the page works behind a prefix.

const KEY = "speechstack-key";

/** The API key of this tab, if there is one. It ends with the tab. */
export const key = () => sessionStorage.getItem(KEY) ?? "";

let asking = null;
/** The dialog was closed without a key: it is not shown again by itself. */
let declined = false;

/** Asks for an API key, once for all calls that wait for it. Resolves to whether one was given. */
function login(problem) {
  if (declined) return Promise.resolve(false);
  asking ??= new Promise((resolve) => {
    const dialog = byId("login");
    status(byId("login-problem"), problem, Boolean(problem));
    byId("login-key").value = "";
    const given = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, byId("login-key").value.trim());
      dialog.close("given");
    };
    byId("login-form").addEventListener("submit", given);
    dialog.addEventListener("close", () => {
      byId("login-form").removeEventListener("submit", given);
      asking = null;
      declined = dialog.returnValue !== "given";
      resolve(!declined);
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

/** Forgets the API key, and asks for another one where one is needed. */
export function logout() {
  sessionStorage.removeItem(KEY);
  location.reload();
}

/** The reply, or an Error with what the server says. Asks for an API key where the gateway wants one. */
export async function call(path, options = {}) {
  let reply;
  for (;;) {
    const used = key();
    try {
      const headers = used ? { ...options.headers, authorization: `Bearer ${used}` } : options.headers;
      reply = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the gateway does not answer");
    }
    if (reply.status !== 401) break;
    // Another call may have been given one meanwhile.
    if (key() === used && !(await login(used ? "this key is not valid" : ""))) break;
  }
  byId("logout").hidden = !key() && !declined;
  byId("logout").textContent = declined ? "Log in" : "Log out";
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
