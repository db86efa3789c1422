// OpenAI's agents SDK and Socket.IO's client for Node against a gateway, as their users configure them for a server of their own.
//
// contract.mjs HOST:PORT

import assert from 'node:assert/strict';
import { setTimeout } from 'node:timers/promises';

import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from '@openai/agents-realtime';
import { io } from 'socket.io-client';

const SERVER = process.argv[2] ?? '127.0.0.1:8080';
const TEXT = 'Good morning. The train to the city is late again.';
const WORDS = ['good', 'morning', 'train', 'city', 'late', 'again'];
const RATE = 24_000;
const TIMEOUT = 120_000;

/** Half of the words arrived: a small model on a CPU mishears some. */
const heard = (text) => 2 * WORDS.filter((word) => text.toLowerCase().includes(word)).length >= WORDS.length;

const within = (what, promise) =>
  Promise.race([promise, setTimeout(TIMEOUT, null, { ref: false }).then(() => assert.fail(`${what}: nothing in time`))]);

/** TEXT spoken, 24 kHz samples, with the silence that ends an utterance. */
async function spoken() {
  const body = JSON.stringify({ model: 'tts-1', voice: 'alloy', input: TEXT, response_format: 'pcm' });
  const headers = { 'content-type': 'application/json' };
  const reply = await fetch(`http://${SERVER}/v1/audio/speech`, { method: 'POST', headers, body });
  assert.equal(reply.status, 200);
  return Buffer.concat([Buffer.from(await reply.arrayBuffer()), Buffer.alloc(RATE * 2 * 2)]);
}

function* pieces(audio, size = RATE / 5) {
  for (let at = 0; at < audio.length; at += size) yield audio.subarray(at, at + size);
}

async function agentsHearAndSpeak(audio) {
  const transport = new OpenAIRealtimeWebSocket({
    url: `ws://${SERVER}/v1/realtime?model=gpt-realtime`, useInsecureApiKey: true,
  });
  const agent = new RealtimeAgent({ name: 'Reader', instructions: 'None.' });
  const session = new RealtimeSession(agent, { transport, config: { audio: { input: { transcription: { model: 'whisper-1' } } } } });
  const errors = [];
  session.on('error', ({ error }) => errors.push(error));
  try {
    await within('connect', session.connect({ apiKey: 'unused' }));
    let text = '';
    const transcribed = new Promise((done) => {
      transport.on('*', (event) => {
        if (event.type !== 'conversation.item.input_audio_transcription.completed') return;
        text += ` ${event.transcript}`;
        if (heard(text)) done();
      });
    });
    for (const piece of pieces(audio)) session.sendAudio(new Uint8Array(piece).buffer);
    await within('text', transcribed);
    const say = (times) => {
      const content = [{ type: 'input_text', text: `${TEXT} `.repeat(times) }];
      transport.sendEvent({ type: 'response.create', response: { input: [{ type: 'message', role: 'user', content }] } });
    };
    const once = (name) => new Promise((done) => session.once(name, done));
    const response = () => new Promise((done) => transport.on('*', (event) => event.type === 'response.done' && done(event.response)));
    const [sound, stopped, whole] = [once('audio'), once('audio_stopped'), response()];
    say(1);
    const { data } = await within('speech', sound);
    assert.ok(data.byteLength > 0);
    await within('end of speech', stopped);
    assert.equal((await within('end of the response', whole)).status, 'completed');
    const [again, cut] = [once('audio'), response()];
    say(20);
    await within('speech', again);
    session.interrupt();
    assert.equal((await within('interruption', cut)).status, 'cancelled');
    assert.deepEqual(errors, []);
  } finally {
    session.close();
  }
}

async function socketIoHears(audio) {
  const bridge = io(`http://${SERVER}/realtime`, { forceNew: true });
  const messages = [];
  let wake = () => {};
  bridge.on('message', (message) => (messages.push(message), wake()));
  const until = async (type, fits = () => true) => {
    for (;;) {
      const message = messages.shift();
      if (!message) await new Promise((done) => (wake = done));
      else if (message.type === type && fits(message)) return message;
      else assert.notEqual(message.type, 'error', JSON.stringify(message));
    }
  };
  try {
    assert.deepEqual(await within('connected', until('connected')), { type: 'connected', content: { engine: 'internal', sr: RATE } });
    bridge.emit('update_session', { session: { turn_detection: { type: 'server_vad', aggressiveness: 2, end_ms: 400 } } });
    for (const piece of pieces(audio)) bridge.emit('audio', { audio: piece.toString('base64') });
    let text = '';
    await within('text', until('transcript_final', ({ content }) => heard((text += ` ${content}`))));
    const { content } = await within('speech', until('audio'));
    assert.ok(Buffer.from(content, 'base64').length > 0);
  } finally {
    bridge.disconnect();
  }
}

const audio = await spoken();
let failed = 0;
for (const check of [agentsHearAndSpeak, socketIoHears]) {
  try {
    await check(audio);
    console.log(`ok      ${check.name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${check.name}\n${error.stack}`);
  }
}
process.exit(failed ? 1 : 0);
