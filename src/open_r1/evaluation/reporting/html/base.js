"use strict";
// What every page has: elements made without markup, the height of the header, and keys with their help.

const byId = (id) => document.getElementById(id);

/** An element with properties or attributes, and children; texts only ever enter as text nodes. */
function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Keep a CSS variable at the height of an element that sticks to the top, so that links land below it; returns what measures it now. */
function measureHeight(node, variable) {
  const measure = () => {
    const height = getComputedStyle(node).position === "sticky" ? node.offsetHeight : 0;
    document.documentElement.style.setProperty(variable, `${height}px`);
  };
  new ResizeObserver(measure).observe(node);
  addEventListener("resize", measure);
  measure();
  return measure;
}

const ARROWS = { ArrowLeft: "\u2190", ArrowRight: "\u2192" };
const actions = new Map(); // key -> what it does

/** Bind what each key does, and list them in the help. */
function bindKeys(description, actionsByKey) {
  const term = element("dt");
  for (const [key, action] of Object.entries(actionsByKey)) {
    actions.set(key, action);
    term.append(element("kbd", {}, ARROWS[key] ?? key), " ");
  }
  byId("keys").append(term, element("dd", {}, description));
}

function isTyping(target) {
  return target instanceof Element && target.closest("input:not([type=checkbox]), select, textarea, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  if (isTyping(event.target)) {
    if (event.key !== "Escape") return;
    event.preventDefault(); // a search field would lose its text
    event.target.blur();
    return;
  }
  const sidewards = event.key.startsWith("Arrow") && document.activeElement?.closest(".scroll"); // it scrolls a wide table
  const action = sidewards ? undefined : actions.get(event.key);
  if (action) {
    event.preventDefault();
    action();
  }
});

/** The section at the top of the window, or the one before or after it. */
function goToSection(step) {
  const sections = [...document.querySelectorAll("main > section")];
  const top = Math.max(byId("header").getBoundingClientRect().bottom, 0) + 24; // on a phone the header scrolls away
  const current = sections.findLastIndex((section) => section.getBoundingClientRect().top <= top);
  const target = sections[Math.min(Math.max(current + step, 0), sections.length - 1)];
  if (!target) return;
  target.tabIndex = -1;
  target.focus({ preventScroll: true });
  target.scrollIntoView();
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // outside of its content
  });
}
byId("show-help").addEventListener("click", () => byId("help").showModal());
measureHeight(byId("header"), "--header");
bindKeys("this help", { "?": () => byId("help").showModal() });
bindKeys("next and previous section", { n: () => goToSection(1), p: () => goToSection(-1) });
// The browser went to the target before the height of the header was known.
if (location.hash.length > 1) byId(location.hash.slice(1))?.scrollIntoView();
