// The section that speaks: samples are played as they arrive.

import { byId, save, speak, status } from "./api.js";

const RATE = 24_000;
/** Seconds between the first samples and their sound. */
const AHEAD = 0.08;
let current = null;

const say = (text, isError) => status(byId("speak-status"), text, isError);

function wanted(format) {
  return {
    model: byId("tts-model").value,
    voice: byId("voice").value,
    input: byId("text").value,
    speed: Number(byId("speed").value) || 1,
    response_format: format,
  };
}

/** Plays s16le samples of a stream as they come. */
class Player {
  constructor() {
    this.audio = new AudioContext({ sampleRate: RATE });
    this.next = 0;
    this.odd = new Uint8Array();
  }

  push(bytes) {
    const all = new Uint8Array(this.odd.length + bytes.length);
    all.set(this.odd);
    all.set(bytes, this.odd.length);
    const whole = all.length - (all.length % 2);
    this.odd = all.slice(whole);
    if (!whole) return;
    const view = new DataView(all.buffer, 0, whole);
    const buffer = this.audio.createBuffer(1, whole / 2, RATE);
    const samples = buffer.getChannelData(0);
    for (let at = 0; at < samples.length; at++) samples[at] = view.getInt16(at * 2, true) / 32768;
    const source = this.audio.createBufferSource();
    source.buffer = buffer;
    source.connect(this.audio.destination);
    this.next = Math.max(this.next, this.audio.currentTime + AHEAD);
    source.start(this.next);
    this.next += buffer.duration;
  }

  /** Resolves when all is played. */
  drained() {
    const left = Math.max(0, this.next - this.audio.currentTime);
    return new Promise((done) => setTimeout(done, left * 1000));
  }
}

async function run() {
  stop();
  const own = (current = { asked: new AbortController(), player: new Player() });
  byId("hush").disabled = false;
  const began = performance.now();
  say("Waiting for the first sound…");
  try {
    const reply = await speak(wanted("pcm"), own.asked.signal);
    let first = 0, bytes = 0;
    for (let reader = reply.body.getReader(), part; !(part = await reader.read()).done; ) {
      first ||= performance.now() - began;
      bytes += part.value.length;
      own.player.push(part.value);
      say(`First sound after ${Math.round(first)} ms, ${(bytes / 2 / RATE).toFixed(1)} s so far`);
    }
    const took = (performance.now() - began) / 1000;
    say(`First sound after ${Math.round(first)} ms; ${(bytes / 2 / RATE).toFixed(1)} s of speech in ${took.toFixed(1)} s`);
    await own.player.drained();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
  if (current === own) stop();
}

function stop() {
  current?.asked.abort();
  current?.player.audio.close();
  current = null;
  byId("hush").disabled = true;
}

/** Stops what is spoken, since a person speaks. */
export function interrupt() {
  if (!current) return;
  stop();
  say("Stopped: you spoke.");
}

/** Makes the section work. */
export function start() {
  byId("speak-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("hush").addEventListener("click", () => {
    stop();
    say("Stopped.");
  });
  byId("save").addEventListener("click", async () => {
    const format = byId("format").value;
    say(`Making ${format}…`);
    try {
      save(await (await speak(wanted(format))).blob(), `speech.${format === "opus" ? "ogg" : format}`);
      say("Saved.");
    } catch (error) {
      say(error.message, true);
    }
  });
}
