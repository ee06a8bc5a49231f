// Parts of a page.

export const $ = (id) => document.getElementById(id);

export function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

export function button(className, text, act) {
  const made = element("button", { type: "button", className, textContent: text });
  made.addEventListener("click", act);
  return made;
}

export function say(message, isBad = false) {
  $("status").textContent = message;
  $("status").classList.toggle("bad", isBad);
}
