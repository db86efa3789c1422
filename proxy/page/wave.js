// A recording as a waveform with the words' places on it.

/** Least and greatest sample of each of `count` stretches, one after the other. */
export function peaks(samples, count) {
  const pairs = new Float32Array(count * 2);
  for (let column = 0; column < count; column++) {
    const from = Math.floor((column * samples.length) / count);
    const to = Math.max(from + 1, Math.floor(((column + 1) * samples.length) / count));
    let low = 0, high = 0;
    for (let at = from; at < to && at < samples.length; at++) {
      low = Math.min(low, samples[at]);
      high = Math.max(high, samples[at]);
    }
    pairs[column * 2] = low;
    pairs[column * 2 + 1] = high;
  }
  return pairs;
}

export class Wave {
  constructor(canvas, player) {
    Object.assign(this, { canvas, player, samples: null, words: [] });
    canvas.addEventListener("click", (event) => this.seek(event.offsetX / canvas.clientWidth));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -2, ArrowRight: 2, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined || !player.duration) return;
      event.preventDefault();
      player.currentTime = Math.min(Math.max(player.currentTime + step, 0), player.duration);
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
    const follow = () => {
      this.draw();
      if (!player.paused) requestAnimationFrame(follow);
    };
    for (const event of ["play", "seeked", "pause", "timeupdate", "loadedmetadata"]) player.addEventListener(event, follow);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  seek(share) {
    if (this.player.duration) this.player.currentTime = share * this.player.duration;
  }

  /** Decodes a recording for its picture; what the browser cannot decode has none. */
  async show(file) {
    [this.samples, this.words] = [null, []];
    this.draw();
    const context = new OfflineAudioContext(1, 1, 16_000);
    try {
      this.samples = (await context.decodeAudioData(await file.arrayBuffer())).getChannelData(0);
    } catch {
      this.samples = null;
    }
    this.draw();
  }

  draw() {
    const { canvas, player } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * scale), Math.round(96 * scale)];
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    pen.clearRect(0, 0, width, height);
    const seconds = player.duration || 0;
    canvas.setAttribute("aria-valuemax", seconds.toFixed(1));
    canvas.setAttribute("aria-valuenow", player.currentTime.toFixed(1));
    if (this.samples) {
      const columns = peaks(this.samples, width);
      pen.fillStyle = style.color;
      for (let x = 0; x < width; x++) {
        const top = (0.5 - columns[x * 2 + 1] / 2) * height;
        const bottom = (0.5 - columns[x * 2] / 2) * height;
        pen.fillRect(x, top, 1, Math.max(1, bottom - top));
      }
    }
    if (!seconds) return;
    pen.globalAlpha = 0.25;
    this.words.forEach((word, nth) => {
      const [from, to] = [(word.start / seconds) * width, (word.end / seconds) * width];
      pen.fillStyle = nth % 2 ? "#0b63c5" : "#e0a100";
      pen.fillRect(from, height - 6 * scale, Math.max(1, to - from), 6 * scale);
    });
    pen.globalAlpha = 1;
    pen.fillStyle = "#d33";
    pen.fillRect((player.currentTime / seconds) * width, 0, scale, height);
  }
}
