// From what the user wants to a text: requests to the server, and the handling of its answers.

import { $, say } from "/elements.js";
import { idsOf, textOf, thinned, wordsOf } from "/frames.js";
import { remember } from "/history.js";
import { lines } from "/server.js";
import { idsBefore, numStages, show, state } from "/state.js";

const MOST_FRAMES = 400, MOST_TEXTS = 9;

const number = (id) => ($(id).value.trim() === "" ? null : Number($(id).value));
export const chosenPredictor = () => state.cascade.predictors.find(({ name }) => name === $("predictor").value);

// How texts are drawn, read from the settings of the page; options that the predictor does not take are left out.
function settings() {
  const { cascade } = state;
  const hasGrid = chosenPredictor().has_grid;
  const given = {
    predictor: $("predictor").value,
    steps: hasGrid ? number("steps") : null,
    tokens_per_call: hasGrid ? null : number("tokens_per_call"),
    temperature: cascade.can_control ? number("temperature") : null,
    top_p: cascade.can_control ? number("top_p") : null,
    top_k: cascade.can_control ? number("top_k") : null,
    guidance: cascade.can_guide ? number("guidance") ?? 0 : 0,
    require_coverage: cascade.can_cover && $("require_coverage").checked,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
}

export function newText() {
  return { keywords: $("keywords").value.split(",").map((word) => word.trim()).filter((word) => word) };
}

// The request to write a stage and those after it again: around its locked words, or else as the text was asked for.
export function again(stage) {
  const known = idsBefore(stage);
  const frame = state.shown.stages[stage - 1];
  const ids = idsOf(frame);
  const kept = wordsOf(frame).filter(({ position }) => state.locked.get(stage)?.has(position));
  if (kept.length > 0) {
    return { known, locked: kept.map(({ position, length }) => ({ position, ids: ids.slice(position, position + length) })) };
  }
  const { asked } = state.shown;
  const isAsked = (asked.known ?? []).length === stage - 1;
  // A given text has no steps; asking for it again would only return it.
  return isAsked && frame.steps > 0 ? { known, keywords: asked.keywords, text: asked.text } : { known };
}

// The request for an edited stage. The token of a word begins with the space before it, also for the first word of a
// shortened text, so that space is put back.
export function edited(stage, text) {
  const hadBlank = /^\s/.test(textOf(state.shown.stages[stage - 1]));
  const isBare = text.trim() !== "" && !/^\s/.test(text);
  return { known: idsBefore(stage), text: hadBlank && isBare ? ` ${text}` : text };
}

// Writes the wanted number of texts, one after another, each from the next seed; a stop or a failure ends them all.
export async function writeAll(asked, update) {
  const wanted = Math.min(Math.max(number("texts") ?? 1, 1), MOST_TEXTS);
  for (let done = 0; done < wanted; done += 1) {
    if (!await write(asked, update, done > 0)) return;
  }
}

// Writes one text and returns whether it succeeded; `update` is called when there is more to show, and at the end. After a
// failure everything is as before, an open editor too.
async function write(asked, update, isOneMore) {
  if (state.writing) return false;
  const before = { shown: state.shown, moment: state.moment, editing: state.editing, locked: state.locked };
  const isNext = isOneMore || ($("reseed").checked && state.versions.length > 0);
  const seed = (number("seed") ?? 0) + (isNext ? 1 : 0);
  const version = { id: `${Date.now()}-${Math.random()}`, asked: { ...asked, ...settings(), seed }, frames: [], stages: [] };
  state.writing = new AbortController();
  say("asking");
  update();
  try {
    for await (const line of lines(version.asked, state.writing.signal)) {
      take(version, line);
      update();
    }
    if (version.text === undefined) throw new Error("the server ended before the text; its terminal says why");
    const fault = remember(version);
    say(fault || told(version), fault !== "");
    return true;
  } catch (error) {
    const isStopped = error.name === "AbortError";
    const isBegun = version.frames.length > 0;
    if (!isStopped) Object.assign(state, before);
    say(isStopped ? `stopped${isBegun ? "; what was finished is shown" : ""}` : error.message, !isStopped);
    return false;
  } finally {
    state.writing = null;
    update();
  }
}

// The cost of a text, in words.
export const told = ({ calls, seconds }) => `${calls} network calls, ${seconds} s`;

// Fills the form with the request of a text.
export function fill({ keywords, seed, predictor, steps, tokens_per_call, temperature, top_p, top_k, guidance, require_coverage }) {
  const values = { seed, predictor, steps, tokens_per_call, temperature, top_p, top_k, guidance };
  for (const [name, value] of Object.entries(values)) $(name).value = value ?? "";
  $("require_coverage").checked = require_coverage;
  if (keywords) $("keywords").value = keywords.join(", ");
}

function take(version, line) {
  if (line.error) throw new Error(line.error);
  if (line.waiting) {
    say("waiting for another text to be finished");
  } else if (line.done) {
    Object.assign(version, line.done);
  } else {
    if (version.frames.length === 0) $("seed").value = version.asked.seed;
    version.frames.push(line);
    if (version.frames.length > MOST_FRAMES) version.frames = thinned(version.frames);
    version.stages[line.stage - 1] = line;
    show(version);
    say(`stage ${line.stage} of ${numStages()}`);
  }
}
