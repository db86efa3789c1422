// tus-js-client against a live stack: an upload that is broken off and resumed, and its transcript, which is printed.
//
// SPEECHSTACK_URL   a healthy stack that keeps jobs
// SPEECHSTACK_FILE  an audio file

import assert from "node:assert/strict";
import { createReadStream, statSync } from "node:fs";
import { Upload } from "tus-js-client";

const base = process.env.SPEECHSTACK_URL;
const file = process.env.SPEECHSTACK_FILE;
const size = statSync(file).size;
const part = Math.ceil(size / 5);

const options = {
  endpoint: `${base}/v1/audio/uploads`,
  chunkSize: part,
  uploadSize: size,
  retryDelays: [0, 500, 1000],
  metadata: { filename: "talk.wav", filetype: "audio/wav" },
};

// Two parts, and then its user goes away.
const url = await new Promise((resolve, reject) => {
  const upload = new Upload(createReadStream(file), {
    ...options,
    onError: reject,
    onChunkComplete: (_, accepted) => {
      if (accepted >= 2 * part) upload.abort().then(() => resolve(upload.url), reject);
    },
  });
  upload.start();
});

const shown = await (await fetch(url)).json();
assert.equal(shown.object, "audio.upload");
assert.equal(shown.filename, "talk.wav");
assert.ok(shown.offset >= 2 * part && shown.offset < size, JSON.stringify(shown));

// Another one goes on with it.
let first;
await new Promise((resolve, reject) => {
  const upload = new Upload(createReadStream(file), {
    ...options,
    uploadUrl: url,
    onError: reject,
    onSuccess: resolve,
    onChunkComplete: (_, accepted) => {
      first ??= accepted;
    },
  });
  upload.start();
});
assert.ok(first > 2 * part, `${first} bytes after the first part of the second client`);

const form = new FormData();
form.set("upload_id", url);
form.set("response_format", "text");
const heard = await fetch(`${base}/v1/audio/transcriptions`, { method: "POST", body: form });
assert.equal(heard.status, 200, await heard.clone().text());
process.stdout.write(await heard.text());

await Upload.terminate(url);
assert.equal((await fetch(url)).status, 404);
