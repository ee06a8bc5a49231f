// All that the page knows. What it shows follows from this; nothing is read back from it but what a person has typed.
//
// A version is a text with everything that made it: { id, asked, frames, stages, text, calls, seconds }. `frames` are the states
// on the way, and `stages` the last one of each stage. One version is shown, and one text is written, at a time.

import { idsOf } from "/frames.js";

export const state = {
  cascade: null,     // what the server says of it
  versions: [],      // oldest first
  shown: null,       // the version on the page
  moment: 0,         // the frame of it that is on the page
  writing: null,     // an AbortController while a text is written
  editing: 0,        // the stage that a person edits, 0 for none
  locked: new Map(), // for a stage, the positions of words that stay
};

export const numStages = () => state.cascade.lengths.length;

// The last frame of every stage up to the moment that is shown; stages that are not known are left empty.
export function shownStages() {
  const stages = [];
  for (const frame of state.shown?.frames.slice(0, state.moment + 1) ?? []) stages[frame.stage - 1] = frame;
  return stages;
}

// The stages before one, as ids that stay.
export const idsBefore = (stage) => state.shown.stages.slice(0, stage - 1).map(idsOf);

export const isAtEnd = () => state.shown !== null && state.moment === Math.max(state.shown.frames.length - 1, 0);

// Whether the stages that are shown can be gone on from: not while they change, and not on their way.
export const isSettled = () => !state.writing && isAtEnd();

export function show(version) {
  state.shown = version;
  state.moment = version ? Math.max(version.frames.length - 1, 0) : 0;
  state.editing = 0;
  state.locked = new Map();
}
