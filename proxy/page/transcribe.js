// The section that transcribes: a file, a recording, or what is said now.

import { byId, save, status, transcribe } from "./api.js";
import { Live } from "./live.js";
import { interrupt } from "./speak.js";
import { follow, show, who } from "./transcript.js";
import { Wave } from "./wave.js";

const player = byId("player");
const wave = new Wave(byId("wave"), player);
let file = null;
let reply = null;
let buttons = [];
let asked = null;
let recorder = null;
let live = null;

const say = (text, isError) => status(byId("transcribe-status"), text, isError);

/** The fields of the API that the form stands for. */
function fields() {
  return {
    model: byId("stt-model").value,
    language: byId("language").value.trim(),
    prompt: byId("prompt").value.trim(),
    ...(byId("speakers").checked ? { diarize: "true" } : {}),
  };
}

function take(chosen) {
  file = chosen;
  reply = null;
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(file);
  byId("sound").hidden = false;
  byId("exports").hidden = true;
  byId("transcript").replaceChildren();
  byId("send").disabled = false;
  say(`${file.name || "recording"}, ${(file.size / 1e6).toFixed(1)} MB`);
  wave.show(file);
}

async function send() {
  asked?.abort();
  const own = (asked = new AbortController());
  const began = performance.now();
  say("Transcribing…");
  try {
    const wanted = { ...fields(), response_format: "verbose_json", "timestamp_granularities[]": ["word", "segment"] };
    reply = await (await transcribe(file, wanted, own.signal)).json();
  } catch (error) {
    if (own === asked) say(error.name === "AbortError" ? "Stopped." : error.message, error.name !== "AbortError");
    return;
  }
  if (own !== asked) return;
  const took = (performance.now() - began) / 1000;
  const speed = reply.duration ? `, ${(reply.duration / took).toFixed(1)} times as fast as it was said` : "";
  say(`${reply.language ?? ""} ${(reply.duration ?? 0).toFixed(1)} s in ${took.toFixed(1)} s${speed}`.trim());
  buttons = show(byId("transcript"), reply, (seconds) => {
    player.currentTime = seconds;
    player.play();
  });
  wave.words = reply.words ?? [];
  wave.draw();
  byId("exports").hidden = false;
}

async function exported(kind) {
  const name = (file?.name || "recording").replace(/\.[^.]*$/, "");
  if (kind === "json") return save(new Blob([JSON.stringify(reply, null, 2)], { type: "application/json" }), `${name}.json`);
  if (kind === "txt") return save(new Blob([reply.text], { type: "text/plain" }), `${name}.txt`);
  say(`Writing ${kind}…`);
  try {
    save(await (await transcribe(file, { ...fields(), response_format: kind })).blob(), `${name}.${kind}`);
    say("Saved.");
  } catch (error) {
    say(error.message, true);
  }
}

async function record(button) {
  if (recorder) return recorder.stop();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    return say(`no microphone: ${error.message}`, true);
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    stream.getTracks().forEach((track) => track.stop());
    const { mimeType } = recorder;
    recorder = null;
    button.setAttribute("aria-pressed", "false");
    button.textContent = "Record";
    const ending = mimeType.includes("mp4") ? "mp4" : mimeType.includes("ogg") ? "ogg" : "webm";
    take(new File(parts, `recording.${ending}`, { type: mimeType }));
    send();
  });
  recorder.start();
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop";
  say("Recording…");
}

async function listen(button) {
  if (live) return live.stop();
  reply = null;
  byId("sound").hidden = true;
  byId("exports").hidden = true;
  const lines = byId("transcript");
  lines.replaceChildren();
  const items = new Map();
  const line = (id) => {
    if (!items.has(id)) {
      items.set(id, document.createElement("p"));
      lines.append(items.get(id));
    }
    return items.get(id);
  };
  const wanted = {
    model: byId("stt-model").value,
    language: byId("language").value.trim(),
    prompt: byId("prompt").value.trim(),
    diarize: byId("speakers").checked,
  };
  live = new Live(wanted, {
    speech: interrupt,
    partial: (id, text) => Object.assign(line(id), { className: "open", textContent: text }),
    final: (id, text, segments) => {
      Object.assign(line(id), { className: "", textContent: text });
      if (segments.length) line(id).replaceChildren(...segments.flatMap(({ speaker, text }) => [who(speaker), `${text} `]));
      if (!text) line(id).remove();
    },
    state: say,
    ended: (problem) => {
      live = null;
      button.setAttribute("aria-pressed", "false");
      button.textContent = "Live";
      say(problem ?? "Stopped.", Boolean(problem));
    },
  });
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop";
  await live.start();
}

/** Makes the section work. */
export function start() {
  byId("file").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
  byId("transcribe-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (file) send();
  });
  byId("record").addEventListener("click", (event) => record(event.currentTarget));
  byId("live").addEventListener("click", (event) => listen(event.currentTarget));
  byId("exports").addEventListener("click", (event) => {
    const kind = event.target.dataset?.export;
    if (kind) exported(kind);
  });
  byId("copy").addEventListener("click", () => navigator.clipboard.writeText(reply.text).then(() => say("Copied.")));
  player.addEventListener("timeupdate", () => follow(reply?.words ?? [], buttons, player.currentTime));
  const drop = byId("drop");
  for (const name of ["dragover", "drop", "dragleave"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
    });
  }
}
