// The page of a cascade. A version is a text with everything that made it:
//   { asked, frames, stages, text, calls, seconds }
// `frames` are the states as the server tells them, in order, and `stages` the last one of each stage. Only one version is
// shown, and only one text is written at a time. What is shown follows from `shown`, the version, and `moment`, the number
// of a frame; nothing is read back from the page but what a person has typed.
"use strict";

const MASKED = 0, END = -1;
const MOST_KEPT = 100;
const $ = (id) => document.getElementById(id);

let cascade;            // what the server says of it
let versions = [];      // oldest first
let shown = null;       // the version on the page
let moment = 0;         // the frame of it that is on the page
let writing = null;     // an AbortController while a text is written
let editing = 0;        // the stage that a person edits, 0 for none
let locked = new Map(); // for a stage, the positions of words that stay

function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

function say(message, isBad = false) {
  $("status").textContent = message;
  $("status").classList.toggle("bad", isBad);
}

// ---- What is asked for ------------------------------------------------------------------------------------------------

const number = (id) => ($(id).value.trim() === "" ? null : Number($(id).value));

// How texts are drawn, as the settings say it; what does not go with the predictor is left out.
function settings() {
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
    require_coverage: $("require_coverage").checked && !cascade.always_covers,
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null));
}

const chosenPredictor = () => cascade.predictors.find(({ name }) => name === $("predictor").value);
const keywords = () => $("keywords").value.split(",").map((word) => word.trim()).filter((word) => word);
const idsOf = (frame) => frame.pieces.flatMap((piece) => piece[2]);
// The stages before one, as ids that stay.
const before = (stage) => stagesOf(shown).slice(0, stage - 1).map(idsOf);

function askNew() {
  write({ keywords: keywords() });
}

// A stage and those after it are written anew: around the words that are locked, or else as it was asked for.
function askAgain(stage) {
  const known = before(stage);
  const frame = stagesOf(shown)[stage - 1];
  const ids = idsOf(frame);
  const kept = wordsOf(frame).filter(({ position }) => locked.get(stage)?.has(position));
  if (kept.length > 0) {
    const places = kept.map(({ position, length }) => ({ position, ids: ids.slice(position, position + length) }));
    write({ known, locked: places });
  } else if ((shown.asked.known ?? []).length === stage - 1) {
    write({ known, keywords: shown.asked.keywords, text: shown.asked.text });
  } else {
    write({ known });
  }
}

// What a person has made of a stage. The tokens of words begin with the blank before them, also that of the first word of a
// shortened text.
function edited(stage) {
  const text = $(`stage-${stage}`).querySelector("textarea").value;
  const hadBlank = /^\s/.test(textOf(stagesOf(shown)[stage - 1]));
  return hadBlank && !/^\s/.test(text) ? ` ${text}` : text;
}

function askEdited(stage) {
  write({ known: before(stage), text: edited(stage) });
}

async function post(path, value, signal) {
  const answer = await fetch(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value), signal,
  });
  if (!answer.ok) throw new Error((await answer.json()).error);
  return answer;
}

// Writes one text and shows it on the way; the version before stays in the list.
async function write(asked) {
  if (writing) return;
  if ($("reseed").checked && versions.length > 0) $("seed").value = (number("seed") ?? 0) + 1;
  const version = { asked: { ...asked, ...settings() }, frames: [], stages: [] };
  const former = shown;
  writing = new AbortController();
  editing = 0;
  say("asking");
  showControls();
  try {
    const answer = await post("/write", version.asked, writing.signal);
    locked = new Map();
    shown = version;
    for await (const line of linesOf(answer.body)) take(version, line);
    if (version.text === undefined) throw new Error("the server ended before the text; its terminal says why");
    finish(version);
  } catch (error) {
    const isStopped = error.name === "AbortError";
    say(isStopped ? "stopped; what was finished is shown" : error.message, !isStopped);
    if (!version.stages.length) shown = former;
  } finally {
    writing = null;
    moment = shown ? Math.max(shown.frames.length - 1, 0) : 0;
    show();
  }
}

async function* linesOf(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const part of chunksOf(body)) {
    const lines = (rest + decoder.decode(part, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

// Not every browser can iterate over a stream.
async function* chunksOf(body) {
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

function take(version, line) {
  if (line.error) throw new Error(line.error);
  if (line.waiting) return say("waiting for another text to be finished");
  if (line.done) return Object.assign(version, line.done);
  version.frames.push(line);
  version.stages[line.stage - 1] = line;
  moment = version.frames.length - 1;
  say(`stage ${line.stage} of ${cascade.lengths.length}`);
  showSoon();
}

function finish(version) {
  versions.push(version);
  versions = versions.slice(-MOST_KEPT);
  remember();
  say(`${version.calls} network calls, ${version.seconds} s`);
}

// ---- What is kept in the browser --------------------------------------------------------------------------------------

const place = () => `cascaded-dllm:${cascade.name}`;

// Frames on the way are many, and stay in the memory of this page; those of finished stages are kept.
function remember() {
  const kept = versions.map(({ frames, ...rest }) => rest);
  try {
    localStorage.setItem(place(), JSON.stringify(kept));
  } catch (error) {
    say(`the browser keeps no more texts (${error.name}); save them to a file`, true);
  }
}

function recall() {
  const found = JSON.parse(localStorage.getItem(place()) ?? "[]");
  versions = found.map((version) => ({ ...version, frames: version.stages.filter(Boolean) }));
}

function saveAll() {
  const content = versions.map(({ frames, stages, ...rest }) => ({
    ...rest, stages: stages.map((frame) => ({ text: textOf(frame), ids: idsOf(frame) })),
  }));
  const file = new Blob([JSON.stringify({ lengths: cascade.lengths, texts: content }, null, 2)], { type: "application/json" });
  const link = element("a", { href: URL.createObjectURL(file), download: "texts.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}

function forgetAll() {
  if (!confirm("Forget all texts of this cascade in this browser?")) return;
  versions = [];
  localStorage.removeItem(place());
  show();
}

// ---- What is shown ----------------------------------------------------------------------------------------------------

// The last frame of every stage up to the moment that is shown.
function stagesOf(version) {
  const stages = [];
  if (version !== null && version === shown && version.frames.length > 0) {
    for (const frame of version.frames.slice(0, moment + 1)) stages[frame.stage - 1] = frame;
    return stages;
  }
  return version?.stages ?? [];
}

const textOf = (frame) => frame.pieces.map(([text, origin]) => (origin === END ? "<|endoftext|>" : text)).join("");

// Words: pieces that belong together, with their place in tokens. A piece that begins with a blank begins a word; ends of
// text that stand together are one.
function wordsOf(frame) {
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

const className = (origin) => (origin < cascade.lengths.length ? `s${origin}` : "plain");

// A word on the page; the blank before it has no colour, and is no part of what is clicked.
function wordElements(word, stage, isFresh) {
  if (word.origin === MASKED) return [element("span", { className: "masked", textContent: "·" })];
  if (word.origin === END) {
    return [element("span", { className: "end", textContent: word.count > 1 ? `end × ${word.count}` : "end" })];
  }
  const [blank] = /^\s*/.exec(word.pieces[0][0]);
  const made = element("span", {}, ...word.pieces.map(([text, origin], index) =>
    element("span", { className: className(origin), textContent: index ? text : text.slice(blank.length) })));
  if (isFresh) made.classList.add("fresh");
  if (canLock()) makeLockable(made, word, stage);
  return [blank, made];
}

function makeLockable(made, word, stage) {
  made.classList.add("word");
  made.tabIndex = 0;
  made.setAttribute("role", "button");
  made.setAttribute("aria-pressed", String(locked.get(stage)?.has(word.position) ?? false));
  made.title = "Lock this word: it stays when the stage is written again";
  const toggle = () => {
    const places = locked.get(stage) ?? new Set();
    if (!places.delete(word.position)) places.add(word.position);
    locked.set(stage, places);
    made.setAttribute("aria-pressed", String(places.has(word.position)));
    showStageButtons(stage);
  };
  made.addEventListener("click", toggle);
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    toggle();
  });
}

const isAtEnd = () => shown !== null && moment === Math.max(shown.frames.length - 1, 0);
const canLock = () => cascade.can_control && !writing && isAtEnd() && shown.text !== undefined;

function makeStages() {
  $("stages").replaceChildren(...cascade.lengths.map((length, index) => {
    const stage = index + 1;
    const isLast = stage === cascade.lengths.length;
    const name = cascade.lengths.length === 1 ? "Text" : `Stage ${stage}`;
    const button = (kind, text, act) => {
      const made = element("button", { type: "button", className: kind, textContent: text });
      made.addEventListener("click", act);
      return made;
    };
    return element("section", { className: `stage${isLast ? " last" : ""}`, id: `stage-${stage}` },
      element("div", { className: "row" },
        element("h2", {}, element("span", { className: `key ${className(stage)}`, textContent: name }), ` ${length} tokens`),
        element("progress", { max: 1, value: 0, hidden: true, ariaLabel: `Stage ${stage}` }),
        ...(isLast && navigator.clipboard ? [button("copy", "Copy", copy)] : []),
        button("edit", "Edit", () => edit(stage)),
        button("again", "Write again", () => askAgain(stage))),
      element("div", { className: "text" }),
      element("div", { className: "editor", hidden: true },
        element("textarea", { spellcheck: false, ariaLabel: `Text of stage ${stage}` }),
        element("div", { className: "row" },
          button("go main", isLast ? "Write around these words" : "Go on from this", () => askEdited(stage)),
          button("leave", "Leave it", () => { editing = 0; show(); }),
          element("span", { className: "faint count" }))));
  }));
  for (const [index] of cascade.lengths.entries()) {
    const area = $(`stage-${index + 1}`).querySelector("textarea");
    let timer;
    area.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => count(index + 1), 150); });
  }
}

async function copy() {
  await navigator.clipboard.writeText(shown.text);
  say("copied");
}

function edit(stage) {
  editing = stage;
  const ends = new RegExp("(<\\|endoftext\\|>)+$");
  const area = $(`stage-${stage}`).querySelector("textarea");
  area.value = textOf(stagesOf(shown)[stage - 1]).replace(ends, "");
  show();
  count(stage);
  area.focus();
}

async function count(stage) {
  const section = $(`stage-${stage}`);
  try {
    const { tokens } = await (await post("/tokens", { text: edited(stage) })).json();
    const most = cascade.lengths[stage - 1];
    const rest = tokens < most ? "; the rest is written around them" : "";
    section.querySelector(".count").textContent = `${tokens} of ${most} tokens${tokens > most ? ", too many" : rest}`;
    section.querySelector(".go").disabled = tokens > most || tokens === 0;
  } catch (error) {
    say(error.message, true);
  }
}

function showStageButtons(stage) {
  const section = $(`stage-${stage}`);
  const isThere = canLock() && editing === 0 && stagesOf(shown)[stage - 1] !== undefined;
  const hasAll = isThere && before(stage).length === stage - 1 && !before(stage).includes(undefined);
  section.querySelector(".edit").hidden = !hasAll;
  section.querySelector(".again").hidden = !hasAll;
  for (const copying of section.querySelectorAll(".copy")) copying.hidden = !hasAll;
  section.querySelector(".again").textContent = locked.get(stage)?.size ? "Write the rest again" : "Write again";
}

function showStages() {
  const stages = stagesOf(shown);
  const current = shown?.frames[moment];
  const earlier = shown?.frames[moment - 1];
  for (const [index] of cascade.lengths.entries()) {
    const stage = index + 1;
    const frame = stages[index];
    const section = $(`stage-${stage}`);
    const isCurrent = current !== undefined && current.stage === stage && current.step < current.steps;
    const bar = section.querySelector("progress");
    bar.hidden = !isCurrent;
    if (isCurrent) bar.value = current.step / current.steps;
    const former = isCurrent && earlier?.stage === stage ? idsOf(earlier) : null;
    const ids = frame ? idsOf(frame) : [];
    section.querySelector(".text").replaceChildren(...(frame ? wordsOf(frame) : []).map((word) =>
      wordElements(word, stage, former !== null && former[word.position] !== ids[word.position])).flat());
    section.querySelector(".text").hidden = editing === stage;
    section.querySelector(".editor").hidden = editing !== stage;
    showStageButtons(stage);
  }
}

function showControls() {
  $("write").disabled = writing !== null;
  $("stop").hidden = writing === null;
  const isLong = !writing && shown !== null && shown.frames.length > cascade.lengths.length;
  $("replay").hidden = !isLong;
  if (!isLong) return;
  $("time").max = shown.frames.length - 1;
  $("time").value = moment;
  const { stage, step, steps } = shown.frames[moment];
  $("moment").textContent = `stage ${stage}, ${steps ? `step ${step} of ${steps}` : "as it was"}`;
}

function described({ keywords = [], known = [], text, locked = [], seed }) {
  const stage = known.length + 1;
  const parts = [];
  if (keywords.length) parts.push(keywords.join(", "));
  if (text !== undefined) parts.push(`stage ${stage} edited`);
  else if (locked.length) parts.push(`stage ${stage} around ${locked.length} word${locked.length > 1 ? "s" : ""}`);
  else if (known.length) parts.push(`from stage ${stage}`);
  return [...parts, `seed ${seed}`].join("; ");
}

function showHistory() {
  $("none").hidden = versions.length > 0;
  $("keep").hidden = versions.length === 0;
  $("history").start = versions.length;
  $("history").replaceChildren(...versions.map((version) => {
    const button = element("button", { type: "button" },
      version.text.length > 160 ? `${version.text.slice(0, 160)}…` : version.text || "(empty)",
      element("small", { textContent: described(version.asked) }));
    button.setAttribute("aria-current", String(version === shown));
    button.addEventListener("click", () => open(version));
    return element("li", {}, button);
  }).reverse());
}

function open(version) {
  if (writing) return;
  stopPlaying();
  shown = version;
  editing = 0;
  locked = new Map();
  moment = Math.max(version.frames.length - 1, 0);
  say(`${version.calls} network calls, ${version.seconds} s`);
  show();
}

function show() {
  showStages();
  showControls();
  showHistory();
}

// However many states arrive, the page is drawn once a frame of the screen.
let isDue = false;
function showSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => { isDue = false; if (writing) { showStages(); showControls(); } });
}

let player = null;
function stopPlaying() {
  clearInterval(player);
  player = null;
  $("play").textContent = "Play";
}

function play() {
  if (player !== null) return stopPlaying();
  if (isAtEnd()) moment = 0;
  $("play").textContent = "Pause";
  player = setInterval(() => {
    if (writing || isAtEnd()) return stopPlaying();
    moment += 1;
    showStages();
    showControls();
  }, 60);
}

// ---- The beginning ----------------------------------------------------------------------------------------------------

function showPredictor() {
  $("steps-label").hidden = !chosenPredictor().has_grid;
  $("tokens-label").hidden = chosenPredictor().has_grid;
}

async function begin() {
  cascade = await (await fetch("/cascade")).json();
  const millions = (cascade.parameters / 1e6).toFixed(1);
  $("facts").textContent = [
    cascade.lengths.length === 1 ? `A flat model of ${cascade.lengths[0]} tokens` : `Stages of ${cascade.lengths.join(", ")} tokens`,
    `${millions} million parameters`,
    ...(cascade.method ? [`importance by ${cascade.method}`] : []),
    cascade.device,
  ].join("; ");
  $("predictor").replaceChildren(...cascade.predictors.map(({ name }) => element("option", { value: name, textContent: name })));
  $("predictor").value = "first_hitting";
  $("steps").placeholder = cascade.steps;
  $("guidance-label").hidden = !cascade.can_guide;
  $("coverage-label").hidden = cascade.always_covers || cascade.lengths.length === 1 || !cascade.can_control;
  $("keywords").disabled = !cascade.can_control;
  makeStages();
  recall();
  showPredictor();
  show();
  $("predictor").addEventListener("change", showPredictor);
  $("asking").addEventListener("submit", (event) => { event.preventDefault(); stopPlaying(); askNew(); });
  $("stop").addEventListener("click", () => writing?.abort());
  $("play").addEventListener("click", play);
  $("time").addEventListener("input", () => { stopPlaying(); moment = Number($("time").value); showStages(); showControls(); });
  $("save").addEventListener("click", saveAll);
  $("forget").addEventListener("click", forgetAll);
  addEventListener("error", (event) => say(event.message, true));
  addEventListener("unhandledrejection", (event) => say(event.reason.message, true));
}

begin().catch((error) => say(`the server does not answer (${error.message})`, true));
