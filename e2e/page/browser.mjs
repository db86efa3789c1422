// Chromium whose microphone plays a WAV file.

import puppeteer from "puppeteer-core";

/** Longest wait for anything on a page, milliseconds. */
export const WAIT = 60_000;

export const launch = (clip) =>
  puppeteer.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--use-fake-ui-for-media-stream",
      "--use-fake-device-for-media-stream",
      `--use-file-for-fake-audio-capture=${clip}`,
      "--autoplay-policy=no-user-gesture-required",
    ],
  });

/** Waits until an element has a text, in lower case. */
export const until = (page, selector, part) =>
  page.waitForFunction((selector, part) => document.querySelector(selector).textContent.toLowerCase().includes(part),
    { timeout: WAIT }, selector, part.toLowerCase());

export const press = (page, selector) => page.$eval(selector, (element) => element.click());
