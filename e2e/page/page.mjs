// The page in Chromium, as a person uses it: a file, the microphone, speech, the engines.
//
// SPEECHSTACK_URL   the gateway
// SPEECHSTACK_CLIP  a WAV file whose transcript has SPEECHSTACK_WORD; the microphone plays it too
// SPEECHSTACK_SHOTS folder for pictures; none are taken without it

import assert from "node:assert/strict";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WAIT, launch, press as pressed, until as shows } from "./browser.mjs";

const { SPEECHSTACK_URL: url, SPEECHSTACK_CLIP: clip, SPEECHSTACK_WORD: word, SPEECHSTACK_SHOTS: shots } = process.env;
const downloads = await mkdtemp(join(tmpdir(), "speechstack-page-"));

const browser = await launch(clip);

try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1100, height: 900 });
  const problems = [];
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && problems.push(`console: ${message.text()}`));
  page.on("request", (request) => {
    const own = [new URL(url).origin, "blob:", "data:"].some((start) => request.url().startsWith(start));
    if (!own) problems.push(`a request elsewhere: ${request.url()}`);
  });
  const session = await browser.target().createCDPSession();
  await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: downloads });
  const shot = (name) => shots && page.screenshot({ path: join(shots, `${name}.png`) });
  const text = (selector) => page.$eval(selector, (element) => element.textContent);
  const until = (selector, part) => shows(page, selector, part);
  const saved = async (ending) => {
    for (const end = Date.now() + WAIT; Date.now() < end; ) {
      const name = (await readdir(downloads)).find((name) => name.endsWith(ending));
      if (name) return readFile(join(downloads, name), "utf8");
      await new Promise((done) => setTimeout(done, 100));
    }
    throw new Error(`no file ${ending} was saved`);
  };
  const press = (selector) => pressed(page, selector);

  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#stt-model option").length > 0, { timeout: WAIT });
  await until("#engines-table", "healthy");
  assert.match(await text("#ready"), /\d of \d engines serve/);

  // A file: words, a waveform, a word that plays, speakers, subtitles.
  await (await page.$("#file")).uploadFile(clip);
  await press("#speakers");
  await press("#send");
  await until("#transcript", word);
  const words = await page.$$(".word");
  assert.ok(words.length > 5, "words are buttons");
  await words.at(-1).click();
  await page.waitForFunction(() => document.querySelector("#player").currentTime > 1, { timeout: WAIT });
  const drawn = await page.$eval("#wave", (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.some((value) => value > 0);
  });
  assert.ok(drawn, "the waveform is drawn");
  assert.ok((await page.$$(".who")).length > 0, "speakers are named");
  await shot("page");
  await press("[data-export=srt]");
  assert.match(await saved(".srt"), /^1\r?\n00:00:0\d,\d{3} --> /);
  await press("[data-export=json]");
  assert.ok(JSON.parse(await saved(".json")).words.length > 5);

  // The keyboard alone reaches what matters.
  await page.focus("#language");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");

  // Speech, played as it comes.
  await press("#say");
  await until("#speak-status", "s of speech in");
  assert.match(await text("#speak-status"), /First sound after \d+ ms/);
  await press("#save");
  await until("#speak-status", "saved");

  // The microphone, recorded.
  await press("#record");
  await until("#record", "stop");
  await new Promise((done) => setTimeout(done, 6_000));
  await press("#record");
  await until("#transcribe-status", "s in");
  assert.match(await text("#transcript"), /\w/);

  // The microphone, live.
  await press("#live");
  await until("#transcribe-status", "listening");
  assert.ok(await page.$eval("#exports", (element) => element.offsetParent === null), "nothing to save while it listens");
  await until("#transcript", word);
  await until("#transcript", "a:");
  assert.ok((await page.$$(".who")).length > 0, "speakers are named");
  await shot("page-live");
  // What is spoken stops as soon as a person speaks: the fake microphone does so again and again.
  await page.$eval("#text", (element) => (element.value = "We walked along the river until the sun went down. ".repeat(8)));
  await press("#say");
  await until("#speak-status", "you spoke");
  assert.ok(await page.$eval("#hush", (element) => element.disabled), "nothing is spoken any more");
  await press("#live");
  await until("#live", "live");

  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await shot("page-dark");
  assert.deepEqual(problems, []);
  console.log("the page works");
} finally {
  await browser.close();
  await rm(downloads, { recursive: true, force: true });
}
