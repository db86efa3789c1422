// The page of a gateway that asks for API keys, in Chromium: a wrong key, the right one, a file, the microphone live, log out.
//
// SPEECHSTACK_URL   the gateway
// SPEECHSTACK_KEY   a key that it takes
// SPEECHSTACK_CLIP  a WAV file whose transcript has SPEECHSTACK_WORD; the microphone plays it too

import assert from "node:assert/strict";
import { WAIT, launch, press as pressed, until as shows } from "./browser.mjs";

const { SPEECHSTACK_URL: url, SPEECHSTACK_KEY: key, SPEECHSTACK_CLIP: clip, SPEECHSTACK_WORD: word } = process.env;

const browser = await launch(clip);

try {
  const page = await browser.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  const asked = () => page.waitForFunction(() => document.querySelector("#login").open, { timeout: WAIT });
  const answer = async (text) => {
    await page.type("#login-key", text);
    await page.keyboard.press("Enter");
  };
  const until = (selector, part) => shows(page, selector, part);
  const press = (selector) => pressed(page, selector);

  await page.goto(url);
  await asked();
  await answer("sk-ss-wrong");
  await until("#login-problem", "not valid");
  await asked();
  await answer(key);
  await page.waitForFunction(() => document.querySelectorAll("#stt-model option").length > 0, { timeout: WAIT });
  assert.ok(!(await page.$eval("#login", (dialog) => dialog.open)), "the dialog has closed");

  await (await page.$("#file")).uploadFile(clip);
  await press("#send");
  await until("#transcript", word);

  // A browser's WebSocket has no headers of its own.
  await press("#live");
  await until("#transcribe-status", "listening");
  await until("#transcript", word);
  await press("#live");
  await until("#live", "live");

  assert.ok(!page.url().includes(key), "the key is in no address");
  await press("#logout");
  await asked();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.deepEqual(problems, []);
  console.log("the page logs in");
} finally {
  await browser.close();
}
