// The stages of the shown text: their words, which can be locked, and their editors.

import { edited } from "/asking.js";
import { $, button, element, say } from "/elements.js";
import { END, MASKED, idsOf, isLast, textToEdit, wordsOf } from "/frames.js";
import { numTokens } from "/server.js";
import { isSettled, numStages, shownStages, state } from "/state.js";

const DELAY = 150; // milliseconds after a key before tokens are counted

const section = (stage) => $(`stage-${stage}`);
const part = (stage, selector) => section(stage).querySelector(selector);
export const typed = (stage) => part(stage, "textarea").value;
const className = (origin) => (origin < numStages() ? `s${origin}` : "plain");

// Makes the sections of all stages; `acts` has what their buttons do, functions of the stage.
export function makeStages(acts) {
  $("stages").replaceChildren(...state.cascade.lengths.map((length, index) => makeStage(index + 1, length, acts)));
}

function makeStage(stage, length, acts) {
  const isFinal = stage === numStages();
  const name = numStages() === 1 ? "Text" : `Stage ${stage}`;
  const area = element("textarea", { spellcheck: false, dir: "auto", ariaLabel: `${name}, to be edited` });
  let timer;
  area.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => count(stage), DELAY); });
  return element("section", { className: `stage${isFinal ? " last" : ""}`, id: `stage-${stage}` },
    element("div", { className: "row" },
      element("h2", {}, element("span", { className: `key ${className(stage)}`, textContent: name }), ` ${length} tokens`),
      element("progress", { max: 1, value: 0, hidden: true, ariaLabel: name }),
      ...(isFinal && navigator.clipboard ? [button("copy", "Copy", acts.copy)] : []),
      button("edit", "Edit", () => acts.edit(stage), `Edit ${name}`),
      button("again", "Write again", () => acts.again(stage))),
    element("div", { className: "text", role: "group", dir: "auto", ariaLabel: name }),
    element("div", { className: "editor", hidden: true },
      area,
      element("div", { className: "row" },
        button("go main", isFinal ? "Write around these words" : "Go on from this", () => acts.goOn(stage)),
        button("leave", "Leave it", () => { acts.leave(); part(stage, ".edit").focus(); }),
        element("span", { className: "faint count", role: "status" }))));
}

export function openEditor(stage) {
  const area = part(stage, "textarea");
  area.value = textToEdit(state.shown.stages[stage - 1]);
  count(stage);
  area.focus();
}

async function count(stage) {
  const most = state.cascade.lengths[stage - 1];
  const text = typed(stage);
  try {
    const tokens = await numTokens(edited(stage, text).text, stage);
    if (text !== typed(stage) || state.editing !== stage) return; // another count is on its way
    const rest = tokens < most ? "; the rest is written around them" : "";
    part(stage, ".count").textContent = `${tokens} of ${most} tokens${tokens > most ? ", too many" : rest}`;
    part(stage, ".go").disabled = tokens > most || tokens === 0;
  } catch (error) {
    say(error.message, true);
  }
}

export function showStages() {
  const { shown, moment, editing } = state;
  const stages = shownStages();
  const current = shown?.frames[moment];
  const earlier = shown?.frames[moment - 1];
  for (let stage = 1; stage <= numStages(); stage += 1) {
    const frame = stages[stage - 1];
    const isCurrent = current?.stage === stage && !isLast(current);
    part(stage, "progress").hidden = !isCurrent;
    if (isCurrent) part(stage, "progress").value = current.step / current.steps;
    const former = isCurrent && earlier?.stage === stage ? earlier : null;
    part(stage, ".text").replaceChildren(...(frame ? wordNodes(frame, former, stage) : []));
    part(stage, ".text").hidden = editing === stage;
    part(stage, ".editor").hidden = editing !== stage;
    showButtons(stage);
  }
}

function showButtons(stage) {
  const stages = shownStages();
  const isDone = (number) => stages[number - 1] !== undefined && isLast(stages[number - 1]);
  const isReady = isSettled() && state.editing === 0 && stages[stage - 1] !== undefined
    && [...Array(stage - 1).keys()].every((index) => isDone(index + 1));
  // The uniform process cannot keep words, but it can continue from a whole text.
  const canEdit = isReady && isDone(stage) && (state.cascade.can_control || stage < numStages());
  part(stage, ".again").hidden = !isReady;
  part(stage, ".edit").hidden = !canEdit;
  for (const copying of section(stage).querySelectorAll(".copy")) copying.hidden = !(isReady && isDone(stage));
  const what = state.locked.get(stage)?.size ? "Write the rest again" : "Write again";
  part(stage, ".again").textContent = what;
  part(stage, ".again").ariaLabel = numStages() === 1 ? what : `${what}: stage ${stage}`;
}

// The words of a frame; those that were not in the frame before are fresh.
function wordNodes(frame, former, stage) {
  const ids = idsOf(frame);
  const before = former && idsOf(former);
  const canLock = isSettled() && isLast(frame) && state.cascade.can_control;
  const nodes = wordsOf(frame).flatMap((word) =>
    wordNode(word, stage, before !== null && before[word.position] !== ids[word.position], canLock));
  // The Tab key stops once in each stage; arrow keys move from word to word.
  const first = nodes.find((node) => node.classList?.contains("word"));
  if (first) first.tabIndex = 0;
  return nodes;
}

// A word on the page; the space before it has no colour and cannot be clicked.
function wordNode(word, stage, isFresh, canLock) {
  if (word.origin === MASKED) return [element("span", { className: "masked", textContent: "·" })];
  if (word.origin === END) {
    return [element("span", { className: "end", textContent: word.count > 1 ? `end × ${word.count}` : "end" })];
  }
  const [blank] = /^\s*/.exec(word.pieces[0][0]);
  const made = element("span", {}, ...word.pieces.map(([text, origin], index) =>
    element("span", { className: className(origin), textContent: index ? text : text.slice(blank.length) })));
  if (isFresh) made.classList.add("fresh");
  if (canLock) makeLockable(made, word, stage);
  return [blank, made];
}

function makeLockable(made, word, stage) {
  const isLocked = () => state.locked.get(stage)?.has(word.position) ?? false;
  const say = () => made.setAttribute("aria-pressed", String(isLocked()));
  made.classList.add("word");
  made.tabIndex = -1;
  made.setAttribute("role", "button");
  made.title = "Lock this word: it stays when the stage is written again";
  say();
  const toggle = () => {
    const places = state.locked.get(stage) ?? new Set();
    if (!places.delete(word.position)) places.add(word.position);
    state.locked.set(stage, places);
    say();
    showButtons(stage);
  };
  made.addEventListener("click", toggle);
  made.addEventListener("keydown", (event) => {
    const right = getComputedStyle(made).direction === "rtl" ? -1 : 1;
    const way = { ArrowRight: right, ArrowLeft: -right }[event.key];
    if (way === undefined && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (way === undefined) toggle();
    else moveFocus(made, way);
  });
}

function moveFocus(word, way) {
  const words = [...word.parentElement.querySelectorAll(".word")];
  const next = words[words.indexOf(word) + way];
  if (!next) return;
  word.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
