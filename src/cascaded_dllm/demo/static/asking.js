// From what a person wants to a text: what is asked of the server, and what becomes of its answer.

import { $, say } from "/elements.js";
import { idsOf, textOf, thinned, wordsOf } from "/frames.js";
import { remember } from "/history.js";
import { lines } from "/server.js";
import { idsBefore, numStages, show, shownStages, state } from "/state.js";

const MOST_FRAMES = 400;

const number = (id) => ($(id).value.trim() === "" ? null : Number($(id).value));
export const chosenPredictor = () => state.cascade.predictors.find(({ name }) => name === $("predictor").value);

// How texts are drawn, as the settings say it; what does not go with the predictor is left out.
function settings() {
  const { cascade } = state;
  const hasGrid = chosenPredictor().has_grid;
  const given = {
    seed: number("seed") ?? 0,
    predictor: $("predictor").value,
    steps: hasGrid ? number("steps") : null,
    tokens_per_call: hasGrid ? null : number("tokens_per_call"),
    temperature: number("temperature") ?? 1,
    top_p: number("top_p") ?? 1,
    top_k: number("top_k"),
    guidance: cascade.can_guide ? number("guidance") ?? 0 : 0,
    require_coverage: cascade.can_cover && $("require_coverage").checked,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
}

export function newText() {
  return { keywords: $("keywords").value.split(",").map((word) => word.trim()).filter((word) => word) };
}

// A stage and those after it anew: around the words that are locked, or else as the text was asked for.
export function again(stage) {
  const known = idsBefore(stage);
  const frame = shownStages()[stage - 1];
  const ids = idsOf(frame);
  const kept = wordsOf(frame).filter(({ position }) => state.locked.get(stage)?.has(position));
  if (kept.length > 0) {
    return { known, locked: kept.map(({ position, length }) => ({ position, ids: ids.slice(position, position + length) })) };
  }
  const { asked } = state.shown;
  return (asked.known ?? []).length === stage - 1 ? { known, keywords: asked.keywords, text: asked.text } : { known };
}

// What a person has made of a stage. The tokens of words begin with the blank before them, also that of the first word of a
// shortened text.
export function edited(stage, text) {
  const hadBlank = /^\s/.test(textOf(shownStages()[stage - 1]));
  return { known: idsBefore(stage), text: hadBlank && !/^\s/.test(text) ? ` ${text}` : text };
}

// Writes one text; `update` is called when there is more of it to be seen, and at the end. What was shown before stays in the
// list of versions, and comes back where nothing of the new text has.
export async function write(asked, update) {
  if (state.writing) return;
  if ($("reseed").checked && state.versions.length > 0) $("seed").value = (number("seed") ?? 0) + 1;
  const version = { asked: { ...asked, ...settings() }, frames: [], stages: [] };
  state.writing = new AbortController();
  state.editing = 0;
  say("asking");
  update();
  try {
    for await (const line of lines(version.asked, state.writing.signal)) {
      take(version, line);
      update();
    }
    if (version.text === undefined) throw new Error("the server ended before the text; its terminal says why");
    state.versions.push(version);
    say(`${version.calls} network calls, ${version.seconds} s`);
    remember();
  } catch (error) {
    const isStopped = error.name === "AbortError";
    say(isStopped ? "stopped; what was finished is shown" : error.message, !isStopped);
  } finally {
    state.writing = null;
    update();
  }
}

function take(version, line) {
  if (line.error) throw new Error(line.error);
  if (line.waiting) {
    say("waiting for another text to be finished");
  } else if (line.done) {
    Object.assign(version, line.done);
  } else {
    version.frames.push(line);
    if (version.frames.length > MOST_FRAMES) version.frames = thinned(version.frames);
    version.stages[line.stage - 1] = line;
    show(version);
    say(`stage ${line.stage} of ${numStages()}`);
  }
}
