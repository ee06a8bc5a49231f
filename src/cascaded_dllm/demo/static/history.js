// The texts so far: in the list on the page, and kept in the browser.

import { $, button, element, say } from "/elements.js";
import { described, idsOf, textOf } from "/frames.js";
import { state } from "/state.js";

const MOST = 100, MOST_WITH_FRAMES = 3;
const SHOWN_LETTERS = 160;

const place = () => `cascaded-dllm/1:${state.cascade.name}`;

// Without the intermediate states, which are many: as if every stage had come at once.
const withoutFrames = (version) => ({ ...version, frames: version.stages.filter(Boolean) });

const isVersion = (found) => Array.isArray(found?.stages) && typeof found.text === "string" && found.asked !== undefined;

// The versions that the browser has stored, from all pages of this cascade.
const kept = () => JSON.parse(localStorage.getItem(place()) ?? "[]").filter(isVersion).map(withoutFrames);

// The versions of this page and of others, in the order in which they were begun; ids start with the time.
function joined(others) {
  const all = new Map([...others, ...state.versions].map((version) => [version.id, version]));
  return [...all.values()].sort((a, b) => parseFloat(a.id) - parseFloat(b.id)).slice(-MOST);
}

// Keeps a new version on this page and in the browser; returns what went wrong with the browser's storage, or "".
export function remember(version) {
  state.versions.push(version);
  const old = state.versions.at(-1 - MOST_WITH_FRAMES);
  if (old) Object.assign(old, withoutFrames(old));
  try {
    state.versions = joined(kept());
    localStorage.setItem(place(), JSON.stringify(state.versions.map(({ frames, ...rest }) => rest)));
  } catch (error) {
    return `this browser keeps no more texts (${error.name}); save them to a file`;
  }
  return "";
}

// Reads the stored versions, now and whenever another page of this cascade changes them.
export function recall(update) {
  try {
    state.versions = kept();
  } catch (error) {
    say(`the texts that this browser has kept cannot be read (${error.name})`, true);
  }
  addEventListener("storage", (event) => {
    if (event.key !== place()) return;
    state.versions = event.newValue === null ? [] : joined(kept());
    update();
  });
}

export function saveAll() {
  const texts = state.versions.map(({ frames, stages, ...rest }) => ({
    ...rest, stages: stages.map((frame) => ({ text: textOf(frame), ids: idsOf(frame) })),
  }));
  const content = JSON.stringify({ lengths: state.cascade.lengths, texts }, null, 2);
  const link = element("a", { href: URL.createObjectURL(new Blob([content], { type: "application/json" })), download: "texts.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}

export function forgetAll() {
  if (!confirm("Forget all texts of this cascade in this browser?")) return;
  state.versions = [];
  try {
    localStorage.removeItem(place());
  } catch (error) {
    say(`what this browser has kept cannot be removed (${error.name})`, true);
  }
}

export function showHistory(open) {
  const { versions } = state;
  const focused = [...$("history").querySelectorAll("button")].indexOf(document.activeElement);
  $("none").hidden = versions.length > 0;
  $("keep").hidden = versions.length === 0;
  $("history").start = versions.length;
  $("history").replaceChildren(...versions.map((version) => {
    const text = version.text.length > SHOWN_LETTERS ? `${version.text.slice(0, SHOWN_LETTERS)}…` : version.text;
    const made = Object.assign(button("", text || "(empty)", () => open(version)), { dir: "auto" });
    made.append(element("small", { textContent: described(version.asked) }));
    made.setAttribute("aria-current", String(version === state.shown));
    return element("li", {}, made);
  }).reverse());
  $("history").querySelectorAll("button")[focused]?.focus();
}
