"use strict";
// The item browser. All texts come from models and data sets: they only ever enter the page as text nodes.
(() => {
  const PAGE = 20;
  const ANY = "";
  const NO_IMAGE = -2;
  const OUTCOMES = ["correct", "wrong", "unparsed", "error"];
  const SHOWN = { correct: "correct", wrong: "wrong", unparsed: "could not be read", error: "was not asked" };
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const data = JSON.parse(document.getElementById("data").textContent);
  const control = (name) => document.getElementById(name);
  let found = [];
  let page = 0;

  // An item is [question, options, right, modality, task, image, answers]; an answer [outcome, letter, output, votes].
  const answer = (item, run) => (run < 0 ? null : item[6][run]);

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function fill(select, names, first) {
    const choices = first === undefined ? [] : [[ANY, first]];
    names.forEach((name, place) => choices.push([String(place), name]));
    for (const [value, name] of choices) {
      const option = element("option", "", name);
      option.value = value;
      select.append(option);
    }
  }

  function disagrees(kind, one, other) {
    if (!one || !other) return false;
    if (kind === "outcome") return one[0] !== other[0];
    if (kind === "letter") return one[1] !== other[1];
    const right = kind === "won" ? one : other;
    const rest = kind === "won" ? other : one;
    return right[0] === 0 && rest[0] !== 0;
  }

  function wanted() {
    const number = (name) => (control(name).value === ANY ? -1 : Number(control(name).value));
    const [run, other, outcome] = [number("run"), number("other"), number("outcome")];
    const [modality, task] = [number("modality"), number("task")];
    const kind = control("disagreement").value;
    const text = control("text").value.trim().toLowerCase();
    return (item) => {
      const own = answer(item, run);
      if (!own) return false;
      if (modality >= 0 && item[3] !== modality) return false;
      if (task >= 0 && item[4] !== task) return false;
      if (outcome >= 0 && own[0] !== outcome) return false;
      if (kind && !disagrees(kind, own, answer(item, other))) return false;
      if (!text) return true;
      return [item[0], ...item[1], own[2]].some((part) => part.toLowerCase().includes(text));
    };
  }

  function answerBlock(item, run) {
    const [outcome, letter, output, votes] = answer(item, run);
    const block = element("div", "answer");
    const who = element("div", "who", data.runs[run]);
    const name = OUTCOMES[outcome];
    who.append(element("span", `outcome ${name}`, SHOWN[name] + (letter ? `: ${letter}` : "")));
    if (votes) who.append(element("span", "labels", ` votes: ${votes}`));
    block.append(who, element("pre", "", output));
    return block;
  }

  function itemBlock(item, runs) {
    const block = element("article", "item");
    const without = item[5] === NO_IMAGE ? "no image" : "image not in this page";
    const image = item[5] >= 0 ? element("img") : element("div", "missing", without);
    if (item[5] >= 0) {
      image.src = data.images[item[5]];
      image.alt = "image of the question";
    }
    const middle = element("div");
    middle.append(element("div", "labels", [data.modalities[item[3]], data.tasks[item[4]]].join(" \u00b7 ")));
    middle.append(element("p", "question", item[0]));
    const options = element("ul", "options");
    item[1].forEach((text, place) => {
      options.append(element("li", place === item[2] ? "right" : "", `${LETTERS[place]}) ${text}${place === item[2] ? " \u2713" : ""}`));
    });
    middle.append(options);
    const answers = element("div");
    for (const run of runs) if (answer(item, run)) answers.append(answerBlock(item, run));
    block.append(image, middle, answers);
    return block;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const first = page * PAGE;
    const runs = [control("run").value, control("other").value].filter((value) => value !== ANY).map(Number);
    const blocks = found.slice(first, first + PAGE).map((place) => itemBlock(data.items[place], [...new Set(runs)]));
    control("items").replaceChildren(...blocks);
    const count = found.length.toLocaleString("en");
    control("shown").textContent = found.length
      ? `${(first + 1).toLocaleString("en")} to ${(first + blocks.length).toLocaleString("en")} of ${count} questions`
      : "no question fits";
    control("previous").disabled = page === 0;
    control("next").disabled = page >= pages - 1;
  }

  function filter() {
    const fits = wanted();
    found = [];
    data.items.forEach((item, place) => {
      if (fits(item)) found.push(place);
    });
    page = 0;
    show();
  }

  function turn(by) {
    page += by;
    show();
    control("questions").scrollIntoView();
  }

  fill(control("run"), data.runs);
  fill(control("other"), data.runs, "none");
  control("run").value = String(data.chosen[0]);
  control("other").value = data.chosen[1] < 0 ? ANY : String(data.chosen[1]);
  fill(control("outcome"), OUTCOMES.map((name) => SHOWN[name]), "any");
  fill(control("modality"), data.modalities, "all");
  fill(control("task"), data.tasks, "all");
  control("filters").addEventListener("change", filter);
  let waiting = 0;
  control("text").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 200);
  });
  control("filters").addEventListener("submit", (event) => event.preventDefault());
  control("previous").addEventListener("click", () => turn(-1));
  control("next").addEventListener("click", () => turn(1));
  filter();
})();
