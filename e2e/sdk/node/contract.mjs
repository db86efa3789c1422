// OpenAI's SDK for Node and Vercel's AI SDK against a live stack: what it must be able to do, and which exceptions it must raise.
//
// SPEECHSTACK_URL         a healthy stack, body limit 2 MiB
// SPEECHSTACK_BUSY_URL    one slow engine whose queue takes nothing
// SPEECHSTACK_ABSENT_URL  a stack without a live engine
// SPEECHSTACK_CLIP        a WAV file in which SPEECHSTACK_WORD is spoken

import assert from 'node:assert/strict';
import { createReadStream, createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout } from 'node:timers/promises';

import { createOpenAI } from '@ai-sdk/openai';
import { experimental_generateSpeech, experimental_transcribe } from 'ai';
import OpenAI, { toFile } from 'openai';

const { SPEECHSTACK_CLIP: CLIP, SPEECHSTACK_WORD: WORD } = process.env;

const client = (variable) =>
  new OpenAI({ baseURL: `${process.env[variable]}/v1`, apiKey: 'unused', maxRetries: 0, timeout: 120_000 });

const healthy = client('SPEECHSTACK_URL');

const vercel = createOpenAI({ baseURL: `${process.env.SPEECHSTACK_URL}/v1`, apiKey: 'unused' });

const transcribe = (to, options = {}) =>
  to.audio.transcriptions.create({ model: 'whisper-1', file: createReadStream(CLIP), ...options });

/** The call must reject with exactly this exception, OpenAI's envelope and a request id. */
async function expectError(exception, status, call) {
  const error = await call().then(
    (reply) => assert.fail(`no exception but ${JSON.stringify(reply)}`),
    (error) => error,
  );
  assert.equal(error.constructor, exception, `${error.constructor.name} instead of ${exception.name}: ${error}`);
  assert.equal(error.status, status);
  assert.ok(error.requestID, 'no x-request-id');
  for (const key of ['message', 'type', 'param', 'code']) {
    assert.ok(key in error.error, `no ${key} in ${JSON.stringify(error.error)}`);
  }
  return error;
}

const checks = {
  async 'lists models'() {
    const ids = [];
    for await (const model of healthy.models.list()) ids.push(model.id);
    assert.ok(ids.includes('parakeet-tdt-0.6b-v3') && ids.includes('magpie-tts-multilingual'), `${ids}`);
  },

  async 'retrieves a model'() {
    const model = await healthy.models.retrieve('parakeet-tdt-0.6b-v3');
    assert.equal(model.object, 'model');
    assert.ok(Number.isInteger(model.created) && model.owned_by);
  },

  async 'transcribes to json and text'() {
    assert.ok((await transcribe(healthy)).text.toLowerCase().includes(WORD));
    assert.ok((await transcribe(healthy, { response_format: 'text' })).toLowerCase().includes(WORD));
  },

  async 'transcribes to subtitles'() {
    assert.match(await transcribe(healthy, { response_format: 'srt' }), / --> /);
    assert.match(await transcribe(healthy, { response_format: 'vtt' }), /^WEBVTT/);
  },

  async 'transcribes with word times'() {
    const reply = await transcribe(healthy, {
      response_format: 'verbose_json',
      timestamp_granularities: ['word', 'segment'],
    });
    assert.ok(Number(reply.duration) > 0.5, `${reply.duration}`);
    assert.ok(reply.words.some(({ word }) => word.toLowerCase().includes(WORD)), JSON.stringify(reply.words));
    assert.ok(reply.words.every(({ start, end }) => start <= end), JSON.stringify(reply.words));
    assert.ok(reply.segments.length > 0);
  },

  async 'streams a transcript'() {
    let deltas = '';
    let done;
    for await (const event of await transcribe(healthy, { model: 'gpt-4o-transcribe', stream: true })) {
      if (event.type === 'transcript.text.delta') deltas += event.delta;
      if (event.type === 'transcript.text.done') done = event;
    }
    assert.equal(done?.text, deltas);
    assert.ok(deltas.toLowerCase().includes(WORD), deltas);
  },

  async 'tells speakers apart'() {
    const reply = await transcribe(healthy, { model: 'gpt-4o-transcribe-diarize', response_format: 'diarized_json' });
    assert.deepEqual([...new Set(reply.segments.map(({ speaker }) => speaker))].sort(), ['A', 'B']);
  },

  async 'speaks into a file'() {
    const folder = mkdtempSync(join(tmpdir(), 'speech-'));
    try {
      for (const [format, magic] of [['wav', 'RIFF'], ['flac', 'fLaC'], ['opus', 'OggS'], ['mp3'], ['pcm']]) {
        const path = join(folder, format);
        const reply = await healthy.audio.speech.create({
          model: 'tts-1',
          voice: 'alloy',
          input: 'the train was late again',
          response_format: format,
        });
        await pipeline(Readable.fromWeb(reply.body), createWriteStream(path));
        const data = readFileSync(path);
        assert.ok(data.length > 2000, `${format}: ${data.length} bytes`);
        if (magic) assert.equal(data.toString('latin1', 0, magic.length), magic);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  },

  async 'the AI SDK transcribes'() {
    for (const model of ['whisper-1', 'gpt-4o-mini-transcribe']) {
      const heard = await experimental_transcribe({ model: vercel.transcription(model), audio: readFileSync(CLIP) });
      assert.ok(heard.text.toLowerCase().includes(WORD), heard.text);
      assert.deepEqual(heard.warnings, []);
    }
    const heard = await experimental_transcribe({
      model: vercel.transcription('whisper-1'),
      audio: readFileSync(CLIP),
      providerOptions: { openai: { language: 'en', timestampGranularities: ['word'] } },
    });
    assert.ok(heard.segments.length > 1 && heard.durationInSeconds > 0.5, JSON.stringify(heard.segments));
    const unknown = experimental_transcribe({ model: vercel.transcription('no-such-model'), audio: readFileSync(CLIP) });
    await assert.rejects(unknown, { name: 'AI_APICallError', statusCode: 404 });
  },

  async 'the AI SDK speaks'() {
    for (const [outputFormat, magic] of [['wav', 'RIFF'], ['flac', 'fLaC'], ['mp3']]) {
      const speech = { model: vercel.speech('tts-1'), text: 'the train was late again', voice: 'alloy', outputFormat };
      const { audio } = await experimental_generateSpeech(speech);
      assert.ok(audio.uint8Array.length > 2000, `${outputFormat}: ${audio.uint8Array.length} bytes`);
      if (magic) assert.equal(Buffer.from(audio.uint8Array).toString('latin1', 0, magic.length), magic);
    }
  },

  async 'a bad request is a BadRequestError'() {
    const error = await expectError(OpenAI.BadRequestError, 400, () =>
      transcribe(healthy, { response_format: 'sonnet' }),
    );
    assert.equal(error.param, 'response_format');
    const empty = await toFile(new Uint8Array(), 'empty.wav');
    await expectError(OpenAI.BadRequestError, 400, () => transcribe(healthy, { file: empty }));
  },

  async 'an unknown model is a NotFoundError'() {
    await expectError(OpenAI.NotFoundError, 404, () => healthy.models.retrieve('no-such-model'));
    const error = await expectError(OpenAI.NotFoundError, 404, () => transcribe(healthy, { model: 'no-such-model' }));
    assert.equal(error.code, 'model_not_found');
  },

  async 'a body over the limit is a 413'() {
    const large = await toFile(Buffer.concat([readFileSync(CLIP), Buffer.alloc(3 << 20)]), 'large.wav');
    await expectError(OpenAI.APIError, 413, () => transcribe(healthy, { file: large }));
  },

  async 'a full queue is a RateLimitError'() {
    const busy = client('SPEECHSTACK_BUSY_URL');
    // A job counts as waiting once its upload is whole, so these come one after the other; the engine needs 3 s for each.
    const attempt = (_, number) => setTimeout(200 * number).then(() => transcribe(busy));
    const attempts = await Promise.allSettled(Array.from({ length: 8 }, attempt));
    const refused = attempts.filter(({ status }) => status === 'rejected').map(({ reason }) => reason);
    assert.ok(refused.length > 0 && refused.length < attempts.length, `${refused.length} of 8 refused: ${refused}`);
    for (const error of refused) {
      assert.equal(error.constructor, OpenAI.RateLimitError, `${error}`);
      assert.equal(error.code, 'rate_limit_exceeded');
      assert.ok(Number(error.headers.get('retry-after')) >= 1);
    }
  },

  async 'no engine is an InternalServerError'() {
    const absent = client('SPEECHSTACK_ABSENT_URL');
    const error = await expectError(OpenAI.InternalServerError, 503, () => transcribe(absent));
    const after = Number(error.headers.get('retry-after'));
    assert.ok(after >= 1 && after <= 150, `retry-after ${after}`);
    assert.equal(error.headers.get('x-should-retry'), 'true');
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log('ok    ', name);
  } catch (error) {
    failed += 1;
    console.log('FAILED', name);
    console.log(error);
  }
}
const count = Object.keys(checks).length;
console.log(`openai for Node ${process.version}: ${count - failed} of ${count} hold`);
process.exitCode = failed ? 1 : 0;
