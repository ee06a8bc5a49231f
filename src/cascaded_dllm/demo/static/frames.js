// Frames, the states of a text as the server sends them:
//   { stage, step, steps, pieces: [[text, stage that wrote it, ids], ...] }
// The functions here depend on nothing else.

export const MASKED = 0, END = -1;
const END_OF_TEXT = "<|endoftext|>";
const FINAL_ENDS = /(<\|endoftext\|>)+$/;

export const idsOf = (frame) => frame.pieces.flatMap(([, , ids]) => ids);

export const textOf = (frame) => frame.pieces.map(([text, origin]) => (origin === END ? END_OF_TEXT : text)).join("");

// Without the ends of text that fill the stage.
export const textToEdit = (frame) => textOf(frame).replace(FINAL_ENDS, "");

export const isLast = (frame) => frame.step === frame.steps;

// Words: pieces that belong together, with their position in tokens. A piece that begins with a space begins a word;
// neighbouring ends of text count as one.
export function wordsOf(frame) {
  const words = [];
  let position = 0;
  for (const [text, origin, ids] of frame.pieces) {
    const last = words.at(-1);
    const isText = origin > MASKED;
    if (isText && last?.isText && !/^\s/.test(text)) {
      last.pieces.push([text, origin]);
      last.length += ids.length;
    } else if (origin === END && last?.origin === END) {
      last.count += 1;
      last.length += ids.length;
    } else {
      words.push({ isText, origin, position, length: ids.length, count: 1, pieces: [[text, origin]] });
    }
    position += ids.length;
  }
  return words;
}

// Every second frame, and all those in which a stage is finished.
export const thinned = (frames) => frames.filter((frame, index) => index % 2 === 0 || isLast(frame));

// The request of a text, in a few words.
export function described({ keywords = [], known = [], text, locked = [], seed }) {
  const stage = known.length + 1;
  const parts = [];
  if (keywords.length) parts.push(keywords.join(", "));
  if (text !== undefined) parts.push(`stage ${stage} edited`);
  else if (locked.length) parts.push(`stage ${stage} around ${locked.length} word${locked.length > 1 ? "s" : ""}`);
  else if (known.length) parts.push(`from stage ${stage}`);
  return [...parts, `seed ${seed}`].join("; ");
}
