// Parts of the page.

export const $ = (id) => document.getElementById(id);

export function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

export function button(className, text, act, label = null) {
  const made = element("button", { type: "button", className, textContent: text });
  if (label) made.ariaLabel = label;
  made.addEventListener("click", act);
  return made;
}

// Screen readers read a message aloud, so an unchanged one is not set again.
export function say(message, isBad = false) {
  if ($("status").textContent !== message) $("status").textContent = message;
  $("status").classList.toggle("bad", isBad);
}
