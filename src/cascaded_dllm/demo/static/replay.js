// Replaying a text: a slider over its frames, and a button that moves it.

import { $ } from "/elements.js";
import { isAtEnd, numStages, state } from "/state.js";

const PACE = 60; // milliseconds a frame

let player = null;

export function stopPlaying() {
  clearInterval(player);
  player = null;
  $("play").textContent = "Play";
}

// Plays or pauses; `showMoment` shows the current frame.
export function play(showMoment) {
  if (player !== null) return stopPlaying();
  if (isAtEnd()) state.moment = 0;
  $("play").textContent = "Pause";
  player = setInterval(() => {
    if (state.writing || isAtEnd()) return stopPlaying();
    state.moment += 1;
    showMoment();
  }, PACE);
}

export function moveTo(moment) {
  stopPlaying();
  state.moment = moment;
}

export function showReplay() {
  const { shown, moment, writing } = state;
  const isLong = !writing && state.editing === 0 && shown !== null && shown.frames.length > numStages();
  $("replay").hidden = !isLong;
  if (!isLong) return;
  $("time").max = shown.frames.length - 1;
  $("time").value = moment;
  const { stage, step, steps } = shown.frames[moment];
  $("moment").textContent = `stage ${stage}, ${steps ? `step ${step} of ${steps}` : "as it was"}`;
}
