// The browser of groups of a training. Names of columns are those of trainings/group_browser.py.

const OUTCOME_NAMES = { right: "all right", mixed: "mixed", wrong: "all wrong", unknown: "not graded" };

class Groups {
  static async open() {
    return new Groups(await unpack(takeBlock("index")), new Blocks(takeBlock("completions")));
  }

  #blocks;

  constructor(index, blocks) {
    this.index = index;
    this.count = index.step.length;
    this.#blocks = blocks;
  }

  load(groups) {
    return this.#blocks.load(groups, this.index.perBlock);
  }

  /** The completions of a loaded group; `completions` is null where only scores were recorded. */
  content(group) {
    const [completions, lengths, cutOff, rewards, advantages] = this.#blocks.entry(group, this.index.perBlock);
    return { completions, lengths, cutOff, rewards, advantages };
  }

  rightCount(group) {
    return [...this.index.rights[group]].filter((sign) => sign === "1").length;
  }

  outcome(group) {
    const signs = new Set(this.index.rights[group]);
    if (!signs.has("1") && !signs.has("0")) return "unknown";
    if (signs.has("1") && signs.has("0")) return "mixed";
    return signs.has("1") ? "right" : "wrong";
  }

  question(group) {
    return this.index.question[group];
  }

  /** The id of a group in addresses. */
  idOf(group) {
    const { index } = this;
    return `${index.runs[index.run[group]]}/${index.step[group]}/${index.questions.id[index.question[group]]}`;
  }
}

// ------------------------------------------------------------------------------------------------- which ones

function groupChoice() {
  const values = new FormData(form);
  const text = (name) => String(values.get(name) ?? "").trim();
  const limit = (name, otherwise) => (text(name) === "" ? otherwise : Number(text(name)));
  const names = ["text", "list", "outcome", "gradient", "sort", "modality", "task", "cut"];
  return {
    ...Object.fromEntries(names.map((name) => [name, text(name)])),
    shown: values.getAll("shown").map(String),
    from: limit("from", -Infinity),
    to: limit("to", Infinity),
  };
}

/** What a group has to fulfil, as functions of its number; without the search for a text. */
function groupConditions(choice, groups) {
  const { index } = groups;
  const of = (name) => (group) => index.questions[name][index.question[group]] === choice[name];
  const gradients = {
    live: (group) => !index.dead[group],
    dead: (group) => index.dead[group] === 1,
    "left out": (group) => index.leftOut[group] === 1,
    replaced: (group) => index.replaced[group] === 1,
  };
  const conditions = [(group) => index.step[group] >= choice.from && index.step[group] <= choice.to];
  if (index.runs.length > 1) conditions.push((group) => choice.shown.includes(index.runs[index.run[group]]));
  if (choice.outcome) conditions.push((group) => groups.outcome(group) === choice.outcome);
  if (choice.gradient) conditions.push(gradients[choice.gradient]);
  if (choice.modality) conditions.push(of("modality"));
  if (choice.task) conditions.push(of("task"));
  if (choice.cut) conditions.push((group) => index.cut[group] === (choice.cut === "yes" ? 1 : 0));
  return conditions;
}

async function fittingGroups(choice, groups) {
  const conditions = groupConditions(choice, groups);
  const fitting = [];
  for (let group = 0; group < groups.count; group += 1) {
    if (conditions.every((fits) => fits(group))) fitting.push(group);
  }
  if (!choice.text) return fitting;
  const pattern = new RegExp(choice.text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "i");
  await groups.load(fitting);
  const { id, problem } = groups.index.questions;
  return fitting.filter((group) => {
    const question = groups.question(group);
    if (pattern.test(id[question]) || pattern.test(problem[question])) return true;
    return (groups.content(group).completions ?? []).some((text) => pattern.test(text));
  });
}

/** Groups in order; a stable sort, so that equal ones stay in the order of steps. */
function sortedGroups(fitting, choice, groups) {
  const { index } = groups;
  const share = (group) => groups.rightCount(group) / index.rights[group].length;
  const rank = {
    last: (group) => -index.step[group],
    fewest: share,
    most: (group) => -share(group),
    longest: (group) => -index.longest[group],
  }[choice.sort];
  if (choice.sort === "id") {
    const { compare } = new Intl.Collator("en", { numeric: true });
    const id = (group) => index.questions.id[index.question[group]];
    return [...fitting].sort((first, second) => compare(id(first), id(second)));
  }
  return rank ? [...fitting].sort((first, second) => rank(first) - rank(second)) : fitting;
}

// ------------------------------------------------------------------------------------------------- elements

/** A square for each completion: filled if it is right. */
function strip(groups, group) {
  const signs = [...groups.index.rights[group]];
  const names = { 1: "right", 0: "wrong", "?": "unknown" };
  const text = `${groups.rightCount(group)} of ${signs.length} right`;
  const squares = signs.map((sign) => element("i", { className: names[sign] }));
  return element("span", { className: "strip", title: text, role: "img", "aria-label": text }, ...squares);
}

/** Outcome and fate of a group as tags. */
function tags(groups, group) {
  const { index } = groups;
  const outcome = groups.outcome(group);
  const count = `${groups.rightCount(group)} of ${index.rights[group].length} right`;
  const texts = [[outcome, outcome === "mixed" ? count : OUTCOME_NAMES[outcome]]];
  if (index.leftOut[group]) texts.push(["error", "dead, left out"]);
  else if (index.dead[group]) texts.push(["error", "dead"]);
  if (index.replaced[group]) texts.push(["error", "replacement"]);
  return texts.flatMap(([name, text]) => [" ", element("span", { className: `outcome ${name}` }, text)]);
}

const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toLocaleString("en", { maximumFractionDigits: 3 });

/** The completions of a loaded group, the best first; equal ones with equal rewards are one. */
function completionParts(groups, group) {
  const { completions, lengths, cutOff, rewards, advantages } = groups.content(group);
  const signs = groups.index.rights[group];
  const merged = new Map();
  const order = advantages.map((_, place) => place).sort((a, b) => advantages[b] - advantages[a] || a - b);
  for (const place of order) {
    const earned = Object.entries(rewards).map(([name, values]) => `${name} ${values[place] ?? "\u2013"}`);
    const facts = [...earned, `${lengths[place].toLocaleString("en")} tokens`];
    if (cutOff[place]) facts.push("cut off");
    const line = facts.join(" \u00b7 ");
    const advantage = signed(advantages[place]);
    const key = JSON.stringify([completions === null ? place : completions[place], line, advantage]);
    if (!merged.has(key)) merged.set(key, { places: [], line, advantage, sign: signs[place], text: completions?.[place] });
    merged.get(key).places.push(place + 1);
  }
  return [...merged.values()].map(({ places, line, advantage, sign, text }) => {
    const who = element("h3", {}, places.length > 1 ? `${places.length} equal ` : `completion ${places[0]} `);
    if (sign !== "?") {
      who.append(element("span", { className: `outcome ${sign === "1" ? "correct" : "wrong"}` }, sign === "1" ? "right" : "wrong"));
    }
    who.append(element("span", { className: "advantage" }, ` advantage ${advantage}`));
    const part = element("div", { className: "answer" }, who, element("div", { className: "labels" }, line));
    if (text !== undefined) part.append(element("pre", {}, text));
    return part;
  });
}

function questionText(groups, question, ...links) {
  const { id, problem, solution, modality, task } = groups.index.questions;
  const labels = [modality[question], task[question]].filter(Boolean).join(" \u00b7 ");
  const part = element("div", { className: "asked" }, element("div", { className: "labels" }, labels));
  part.append(element("p", { className: "question" }, problem[question] || `question ${id[question]}`));
  if (solution[question]) part.append(element("p", { className: "expected" }, `expected: ${solution[question]}`));
  part.append(element("p", { className: "ids" }, element("span", { className: "id" }, id[question]), ...links));
  return part;
}

function runName(groups, run) {
  return element("span", { className: `key run-${run}` }, groups.index.runs[run]);
}

function groupCard(groups, group, isAlone) {
  const { index } = groups;
  const id = index.questions.id[index.question[group]];
  const step = element("a", { href: `#${new URLSearchParams({ item: groups.idOf(group) })}` }, `step ${index.step[group].toLocaleString("en")}`);
  const over = element("a", { className: "over", href: `#${new URLSearchParams({ list: "questions", item: id })}` }, "over the run");
  const head = element("p", { className: "group-head" }, ...(isAlone ? [] : [runName(groups, index.run[group]), " "]));
  head.append(step, " ", strip(groups, group), ...tags(groups, group));
  const completions = element("div", { className: "answers" }, ...completionParts(groups, group));
  return element("article", { className: "item group", tabIndex: -1 }, head, questionText(groups, index.question[group], " \u00b7 ", over), completions);
}

/** A group of a question, which is drawn when it is opened. */
function foldedGroup(groups, group) {
  const step = element("span", { className: "step" }, `step ${groups.index.step[group].toLocaleString("en")}`);
  const node = element("details", {}, element("summary", {}, step, strip(groups, group), ...tags(groups, group)));
  node.addEventListener("toggle", async () => {
    if (!node.open || node.childElementCount > 1) return;
    await groups.load([group]);
    node.append(element("div", { className: "answers" }, ...completionParts(groups, group)));
  });
  return node;
}

/** A question with its groups of each of these runs, side by side. */
function questionCard(groups, question, members, runs) {
  const columns = runs.map((run) => {
    const own = members.filter((group) => groups.index.run[group] === run);
    const rights = own.reduce((sum, group) => sum + groups.rightCount(group), 0);
    const total = own.reduce((sum, group) => sum + groups.index.rights[group].length, 0);
    const count = own.length === 1 ? "1 group" : `${own.length} groups`;
    const head = element("h3", {}, runName(groups, run), own.length ? ` ${count}, ${rights} of ${total} right` : " no group");
    return element("div", { className: "run-groups" }, head, ...own.map((group) => foldedGroup(groups, group)));
  });
  return element("article", { className: "item group", tabIndex: -1 }, questionText(groups, question), element("div", { className: "sides" }, ...columns));
}

// ------------------------------------------------------------------------------------------------- the list

class GroupSource {
  home = "#groups";
  #groups;
  #choice;
  #members = new Map(); // question -> its groups that fit, by step

  constructor(groups) {
    this.#groups = groups;
    byId("items").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !event.target.matches("article")) return;
      event.preventDefault();
      const folded = [...event.target.querySelectorAll(".run-groups details")];
      const isOpening = folded.some((node) => !node.open);
      for (const node of folded) node.open = isOpening;
      event.target.querySelector("a.over")?.click();
    });
    const term = element("dt", {}, element("kbd", {}, "Enter"));
    byId("keys").append(term, element("dd", {}, "from a group to its question over the run; there, open or close all its groups"));
  }

  get noun() {
    return this.#isOfQuestions ? "questions" : "groups";
  }

  get #isOfQuestions() {
    return ["questions", "shared"].includes(this.#choice?.list);
  }

  /** The runs that are shown. */
  get #runs() {
    const { runs } = this.#groups.index;
    return [...runs.keys()].filter((run) => runs.length === 1 || this.#choice.shown.includes(runs[run]));
  }

  #isInAll(question) {
    const runs = new Set(this.#members.get(question).map((group) => this.#groups.index.run[group]));
    return runs.size === this.#runs.length;
  }

  fill() {
    const { index } = this.#groups;
    const kinds = (name) => [...new Set(index.questions[name])].filter(Boolean).sort().map((value) => [value, value]);
    for (const name of ["modality", "task"]) {
      fillSelect(name, kinds(name));
      hideUnless(name, kinds(name).length > 1);
    }
    hideUnless("cut", index.cut.includes(1));
    byId("runs").hidden = index.runs.length < 2;
    if (index.runs.length < 2) {
      byId("list").querySelector("[value=shared]").remove();
      return;
    }
    index.runs.forEach((name, run) => {
      const box = element("input", { type: "checkbox", name: "shown", value: name, defaultChecked: true });
      byId("runs").append(element("label", { className: "check" }, box, " ", runName(this.#groups, run)));
    });
  }

  async list() {
    this.#choice = groupChoice();
    const fitting = await fittingGroups(this.#choice, this.#groups);
    if (!this.#isOfQuestions) return sortedGroups(fitting, this.#choice, this.#groups);
    this.#members = new Map();
    for (const group of fitting) {
      const question = this.#groups.question(group);
      if (!this.#members.has(question)) this.#members.set(question, []);
      this.#members.get(question).push(group);
    }
    const first = sortedGroups(fitting, this.#choice, this.#groups).map((group) => this.#groups.question(group));
    const questions = [...new Set(first)];
    return this.#choice.list === "shared" ? questions.filter((question) => this.#isInAll(question)) : questions;
  }

  async load(items) {
    if (!this.#isOfQuestions) await this.#groups.load(items);
  }

  card(item, position, total) {
    const isAlone = this.#groups.index.runs.length === 1;
    const node = this.#isOfQuestions ? questionCard(this.#groups, item, this.#members.get(item), this.#runs) : groupCard(this.#groups, item, isAlone);
    node.setAttribute("aria-label", this.idOf(item));
    node.setAttribute("aria-posinset", position);
    node.setAttribute("aria-setsize", total);
    return node;
  }

  drawn(items) {
    const groups = this.#isOfQuestions ? items.flatMap((question) => this.#members.get(question)) : items;
    const dead = groups.filter((group) => this.#groups.index.dead[group]).length;
    const rights = groups.reduce((sum, group) => sum + this.#groups.rightCount(group), 0);
    const total = groups.reduce((sum, group) => sum + this.#groups.index.rights[group].length, 0);
    const share = (part, whole) => `${part.toLocaleString("en")} of ${whole.toLocaleString("en")} (${((100 * part) / whole).toFixed(1)} %)`;
    byId("rights").textContent = groups.length ? `among these: completions right ${share(rights, total)}, dead groups ${share(dead, groups.length)}` : "";
  }

  idOf(item) {
    return this.#isOfQuestions ? this.#groups.index.questions.id[item] : this.#groups.idOf(item);
  }

  placeOf(id) {
    if (this.#isOfQuestions) {
      const question = this.#groups.index.questions.id.indexOf(id);
      return question < 0 ? undefined : question;
    }
    for (let group = 0; group < this.#groups.count; group += 1) if (this.#groups.idOf(group) === id) return group;
    return undefined;
  }
}

openList(async () => {
  const groups = await Groups.open();
  linkDiagrams((step) => nearestStep(groups.index.step, step));
  return new GroupSource(groups);
});
