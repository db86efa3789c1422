// A transcript as words that can be played.

const time = (seconds) => {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

/** Words of a reply in paragraphs: a new one with each speaker, and with each segment where there are no speakers. */
export function paragraphs(reply) {
  const words = reply.words ?? [];
  if (!words.length) {
    return (reply.segments ?? []).map(({ start, text, speaker }) => ({ start, speaker, text: text.trim(), words: [] }));
  }
  const ends = (reply.segments ?? []).map((segment) => segment.end);
  const made = [];
  let segment = 0;
  for (const word of words) {
    while (segment < ends.length && word.start >= ends[segment] - 0.01) segment++;
    const last = made.at(-1);
    const same = last && (word.speaker ? last.speaker === word.speaker : last.segment === segment);
    if (same) last.words.push(word);
    else made.push({ start: word.start, speaker: word.speaker, segment, words: [word] });
  }
  return made;
}

/** The name of a speaker before what is said. */
export function who(speaker) {
  const name = document.createElement("span");
  name.className = "who";
  name.textContent = `${speaker}:`;
  return name;
}

/** Shows a reply in `element`; `play` gets the second of a word that was clicked. Returns the words' buttons. */
export function show(element, reply, play) {
  const buttons = [];
  const shown = paragraphs(reply).map((paragraph) => {
    const line = document.createElement("p");
    const at = document.createElement("span");
    at.className = "at";
    at.textContent = time(paragraph.start);
    line.append(at);
    if (paragraph.speaker) line.append(who(paragraph.speaker));
    if (!paragraph.words.length) line.append(paragraph.text);
    for (const word of paragraph.words) {
      const button = document.createElement("button");
      button.className = "word";
      button.textContent = word.word.trim();
      button.title = `${word.start.toFixed(2)} to ${word.end.toFixed(2)} s`;
      if (word.confidence < 0.5) button.classList.add("unsure");
      button.addEventListener("click", () => play(word.start));
      buttons.push(button);
      line.append(button, " ");
    }
    return line;
  });
  if (!shown.length) shown.push(Object.assign(document.createElement("p"), { textContent: reply.text || "No speech was found." }));
  element.replaceChildren(...shown);
  return buttons;
}

/** Marks the word at `seconds`. */
export function follow(words, buttons, seconds) {
  words.forEach((word, nth) => buttons[nth]?.classList.toggle("now", seconds >= word.start && seconds < word.end));
}
