// All that the page knows. What it shows follows from this; only what the user typed is read back from the page.
//
// A version is a text with everything that made it: { id, asked, frames, stages, text, calls, seconds }. `frames` are its
// states, and `stages` the last state of each stage. One version is shown, and one text is written, at a time.

import { idsOf } from "/frames.js";

export const state = {
  cascade: null,     // the server's facts about the cascade
  versions: [],      // oldest first
  shown: null,       // the version on the page
  moment: 0,         // number of its frame that is on the page
  writing: null,     // an AbortController while a text is written
  editing: 0,        // the stage that the user edits, 0 for none
  locked: new Map(), // for each stage, the positions of words that stay
};

export const numStages = () => state.cascade.lengths.length;

// The last frame of every stage up to the shown moment; unknown stages are left empty.
export function shownStages() {
  const stages = [];
  for (const frame of state.shown?.frames.slice(0, state.moment + 1) ?? []) stages[frame.stage - 1] = frame;
  return stages;
}

// The ids of the stages before one, which stay.
export const idsBefore = (stage) => state.shown.stages.slice(0, stage - 1).map(idsOf);

export const isAtEnd = () => state.shown !== null && state.moment === Math.max(state.shown.frames.length - 1, 0);

// Whether the user can continue from the shown stages: no text is being written, and the last frame is shown.
export const isSettled = () => !state.writing && isAtEnd();

export function show(version) {
  state.shown = version;
  state.moment = version ? Math.max(version.frames.length - 1, 0) : 0;
  state.editing = 0;
  state.locked = new Map();
}
