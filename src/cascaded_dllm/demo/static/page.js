// The page of a cascade: what it shows at first, and what its buttons do.

import { again, chosenPredictor, edited, fill, newText, told, writeAll } from "/asking.js";
import { $, element, say } from "/elements.js";
import { forgetAll, recall, saveAll, showHistory } from "/history.js";
import { moveTo, play, showReplay, stopPlaying } from "/replay.js";
import { facts } from "/server.js";
import { makeStages, openEditor, showStages, typed } from "/stages.js";
import { show, state } from "/state.js";

// The frame that is on the page. A list that is made anew for each of many frames would take no click.
function showMoment() {
  showStages();
  showReplay();
}

function update() {
  showMoment();
  $("write").setAttribute("aria-disabled", String(state.writing !== null));
  $("stop").hidden = state.writing === null;
  if (!state.writing) showHistory(open);
}

// However many states arrive, the page is drawn at most once for each frame of the screen.
let isDue = false;
function updateSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; update(); });
}

function ask(asked) {
  stopPlaying();
  writeAll(asked, updateSoon);
}

function open(version) {
  if (state.writing) return;
  stopPlaying();
  show(version);
  fill(version.asked);
  showPredictor();
  say(told(version));
  update();
}

const acts = {
  again: (stage) => ask(again(stage)),
  goOn: (stage) => ask(edited(stage, typed(stage))),
  edit: (stage) => { state.editing = stage; update(); openEditor(stage); },
  leave: () => { state.editing = 0; update(); },
  copy: async () => { await navigator.clipboard.writeText(state.shown.text); say("copied"); },
};

function showPredictor() {
  $("steps-label").hidden = !chosenPredictor().has_grid;
  $("tokens-label").hidden = chosenPredictor().has_grid;
}

function showFacts({
  lengths, parameters, method, device, predictors, predictor, steps, most_steps, can_control, can_guide, can_cover, example,
}) {
  $("facts").textContent = [
    lengths.length === 1 ? `A flat model of ${lengths[0]} tokens` : `Stages of ${lengths.join(", ")} tokens`,
    `${(parameters / 1e6).toFixed(1)} million parameters`,
    ...(method ? [`importance by ${method}`] : []),
    device,
  ].join("; ");
  $("predictor").replaceChildren(...predictors.map((name) => element("option", { value: name.name, textContent: name.name })));
  $("predictor").value = predictor;
  Object.assign($("steps"), { placeholder: steps, max: most_steps });
  $("guidance-label").hidden = !can_guide;
  $("coverage-label").hidden = !can_cover;
  Object.assign($("keywords"), { disabled: !can_control, placeholder: example });
  for (const label of document.querySelectorAll(".law")) label.hidden = !can_control;
}

async function begin() {
  state.cascade = await facts();
  showFacts(state.cascade);
  showPredictor();
  makeStages(acts);
  listen();
  recall(updateSoon);
  // The next text gets the seed after that of the last version.
  if (state.versions.length > 0) $("seed").value = state.versions.at(-1).asked.seed;
  update();
}

function listen() {
  $("predictor").addEventListener("change", showPredictor);
  $("asking").addEventListener("submit", (event) => { event.preventDefault(); ask(newText()); });
  $("stop").addEventListener("click", () => state.writing?.abort());
  $("play").addEventListener("click", () => play(showMoment));
  $("time").addEventListener("input", () => { moveTo(Number($("time").value)); showMoment(); });
  $("save").addEventListener("click", saveAll);
  $("forget").addEventListener("click", () => { forgetAll(); update(); });
  addEventListener("error", (event) => say(event.message, true));
  addEventListener("unhandledrejection", (event) => say(String(event.reason?.message ?? event.reason), true));
}

begin().catch((error) => say(error.message, true));
