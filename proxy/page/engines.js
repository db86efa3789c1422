// The section of the engines: their states, queues and repairs.

import { byId, json, status } from "./api.js";

const PERIOD = 1000;
const NAMES = { stt: "speech to text", tts: "text to speech", llm: "language" };
const GOOD = ["healthy", "saturated"];
const WARN = ["starting", "warming", "degraded", "suspect", "unknown", "probation"];
/** Repairs that are shown. */
const MOST = 10;

const cell = (text, className = "") => Object.assign(document.createElement("td"), { textContent: text, className });

function row(engine) {
  const line = document.createElement("tr");
  const tone = GOOD.includes(engine.state) ? "good" : WARN.includes(engine.state) ? "warn" : "bad";
  const why = [engine.class && `class ${engine.class}`, engine.says].filter(Boolean).join(", ");
  line.append(
    cell(engine.name),
    cell(NAMES[engine.capability] ?? engine.capability),
    cell(why ? `${engine.state} (${why})` : engine.state, `state-${tone}`),
    cell(`${engine.queue_seconds.toFixed(1)} s`),
    cell(String(engine.restarts)),
  );
  return line;
}

function repair(incident) {
  const item = document.createElement("li");
  const at = new Date(incident.started_unix_ms).toLocaleTimeString();
  const healthy = incident.healthy_after_ms;
  const end = healthy == null ? "not healthy yet" : `verified after ${(healthy / 1000).toFixed(1)} s`;
  item.append(`${at} ${incident.engine}: class ${incident.class}${incident.signature ? ` (${incident.signature})` : ""}, ${end}`);
  const steps = document.createElement("div");
  steps.className = "steps";
  steps.textContent = incident.timeline.map(({ at_ms, event }) => `${event} ${(at_ms / 1000).toFixed(2)} s`).join(" → ");
  item.append(steps);
  return item;
}

async function look() {
  let stack;
  try {
    stack = await json("page/stack");
  } catch (error) {
    // Shown on this machine alone, unless the gateway's page.stack is on.
    const hidden = error.message.startsWith("404");
    status(byId("engines-status"), hidden ? "This gateway does not show its engines." : error.message, !hidden);
    return hidden;
  }
  const serving = stack.engines.filter((engine) => engine.weight > 0).length;
  status(byId("ready"), `${serving} of ${stack.engines.length} engines serve`);
  status(byId("engines-status"), "");
  byId("engines-table").hidden = false;
  byId("engines-table").tBodies[0].replaceChildren(...stack.engines.map(row));
  const incidents = stack.engines.flatMap((engine) => engine.incidents);
  incidents.sort((a, b) => b.started_unix_ms - a.started_unix_ms);
  byId("repairs-title").hidden = !incidents.length;
  byId("repairs").replaceChildren(...incidents.slice(0, MOST).map(repair));
  return false;
}

/** Looks again and again while the page can be seen. */
export async function start() {
  for (;;) {
    if (!document.hidden && (await look())) return;
    await new Promise((done) => setTimeout(done, PERIOD));
  }
}
