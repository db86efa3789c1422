// What is said now, over OpenAI's Realtime API: 24 kHz samples out, text in.

import { key } from "./api.js";

const RATE = 24_000;
/** Bytes that wait to be sent beyond which the microphone is ahead of the network. */
const MOST_WAITING = 1_000_000;

const WORKLET = `registerProcessor("pcm", class extends AudioWorkletProcessor {
  constructor() { super(); this.held = []; this.count = 0; }
  process([[channel]]) {
    if (!channel) return true;
    this.held.push(channel.slice());
    this.count += channel.length;
    if (this.count >= ${RATE / 25}) {
      const samples = new Int16Array(this.count);
      let at = 0;
      for (const part of this.held) for (const value of part) samples[at++] = Math.max(-1, Math.min(1, value)) * 32767;
      this.port.postMessage(samples.buffer, [samples.buffer]);
      this.held = []; this.count = 0;
    }
    return true;
  }
});`;

function base64(buffer) {
  let text = "";
  for (const byte of new Uint8Array(buffer)) text += String.fromCharCode(byte);
  return btoa(text);
}

/**
 * One conversation. `on` has speech(), partial(id, text), final(id, text, segments), state(text) and ended(problem); segments have
 * speaker and text, and are none unless speakers were asked for and could be told.
 */
export class Live {
  constructor({ model, language, prompt, diarize }, on) {
    this.on = on;
    this.texts = new Map();
    this.segments = new Map();
    this.transcription = { model, ...(language && { language }), ...(prompt && { prompt }), ...(diarize && { diarize }) };
  }

  async start() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true, channelCount: 1 } });
      this.audio = new AudioContext({ sampleRate: RATE });
      const code = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
      await this.audio.audioWorklet.addModule(code);
      URL.revokeObjectURL(code);
    } catch (error) {
      return this.end(`no microphone: ${error.message}`);
    }
    const url = new URL("v1/realtime?intent=transcription", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    // A browser cannot set headers here.
    this.socket = new WebSocket(url, key() ? ["realtime", `openai-insecure-api-key.${key()}`] : []);
    this.socket.addEventListener("open", () => this.opened());
    this.socket.addEventListener("message", ({ data }) => this.received(JSON.parse(data)));
    this.socket.addEventListener("close", ({ code, reason }) => {
      this.end(this.stopping || code === 1000 ? null : `the conversation ended: ${reason || code}`);
    });
  }

  opened() {
    const input = {
      format: { type: "audio/pcm", rate: RATE },
      transcription: this.transcription,
      turn_detection: { type: "server_vad", silence_duration_ms: 500 },
    };
    this.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
    const node = new AudioWorkletNode(this.audio, "pcm", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      if (this.socket.bufferedAmount > MOST_WAITING) return this.end("the network is too slow");
      if (!this.stopping) this.send({ type: "input_audio_buffer.append", audio: base64(data) });
    };
    this.audio.createMediaStreamSource(this.stream).connect(node);
    this.on.state("Listening…");
  }

  received(event) {
    const id = event.item_id;
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.on.speech();
        break;
      case "conversation.item.input_audio_transcription.delta":
        this.texts.set(id, (this.texts.get(id) ?? "") + event.delta);
        this.on.partial(id, this.texts.get(id));
        break;
      case "conversation.item.input_audio_transcription.segment":
        this.segments.set(id, [...(this.segments.get(id) ?? []), event]);
        break;
      case "conversation.item.input_audio_transcription.completed":
        this.on.final(id, event.transcript, this.segments.get(id) ?? []);
        this.texts.delete(id);
        this.segments.delete(id);
        if (this.stopping) this.socket.close(1000);
        break;
      case "conversation.item.input_audio_transcription.failed":
        this.on.final(id, "", []);
        this.on.state(event.error?.message ?? "a part was not understood");
        break;
      case "error":
        // A commit of silence finds nothing, which is no trouble at the end.
        if (this.stopping) this.socket.close(1000);
        else this.on.state(event.error.message);
    }
  }

  send(event) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(event));
  }

  /** Ends the conversation once its last words are there. */
  stop() {
    if (this.stopping) return;
    this.stopping = true;
    this.silence();
    this.send({ type: "input_audio_buffer.commit" });
    setTimeout(() => this.socket?.close(1000), 10_000);
  }

  silence() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.audio?.close().catch(() => {});
    this.audio = null;
  }

  end(problem) {
    if (this.ended) return;
    this.ended = true;
    this.silence();
    this.socket?.close();
    this.on.ended(problem);
  }
}
