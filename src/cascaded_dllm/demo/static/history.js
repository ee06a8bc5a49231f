// The texts so far: in the list on the page, and kept in the browser.

import { $, button, element, say } from "/elements.js";
import { described, idsOf, textOf } from "/frames.js";
import { state } from "/state.js";

const MOST = 100, MOST_WITH_FRAMES = 10;
const SHOWN_LETTERS = 160;

const place = () => `cascaded-dllm:${state.cascade.name}`;

// Without the states on the way, of which there are many: as if every stage had come at once.
const withoutFrames = (version) => ({ ...version, frames: version.stages.filter(Boolean) });

export function remember() {
  state.versions.splice(0, state.versions.length - MOST);
  const old = state.versions.at(-1 - MOST_WITH_FRAMES);
  if (old && old !== state.shown) Object.assign(old, withoutFrames(old));
  try {
    localStorage.setItem(place(), JSON.stringify(state.versions.map(({ frames, ...rest }) => rest)));
  } catch (error) {
    say(`this browser keeps no more texts (${error.name}); save them to a file`, true);
  }
}

export function recall() {
  try {
    state.versions = JSON.parse(localStorage.getItem(place()) ?? "[]").map(withoutFrames);
  } catch (error) {
    say(`the texts that this browser has kept cannot be read (${error.name})`, true);
  }
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
  localStorage.removeItem(place());
}

export function showHistory(open) {
  const { versions } = state;
  $("none").hidden = versions.length > 0;
  $("keep").hidden = versions.length === 0;
  $("history").start = versions.length;
  $("history").replaceChildren(...versions.map((version) => {
    const text = version.text.length > SHOWN_LETTERS ? `${version.text.slice(0, SHOWN_LETTERS)}…` : version.text;
    const made = button("", text || "(empty)", () => open(version));
    made.append(element("small", { textContent: described(version.asked) }));
    made.setAttribute("aria-current", String(version === state.shown));
    return element("li", {}, made);
  }).reverse());
}
