// The item browser: filters, pages, the current question, and all of it in the address of the page.

const PAGE = 20;
const form = byId("filters");

class Browser {
  #questions;
  #defaults; // name of a control -> its values at first
  #listed = []; // numbers of the questions that fit, in order
  #page = 0;
  #current = null; // number of the question that the keyboard is at
  #turn = 0; // of several changes only the last one is drawn

  constructor(questions) {
    this.#questions = questions;
    fillForm(questions);
    this.#defaults = this.#formValues();
    let typing = 0;
    form.addEventListener("input", (event) => {
      if (!isTyping(event.target) || event.target.tagName === "SELECT") return;
      clearTimeout(typing);
      typing = setTimeout(() => this.#filter({ replace: true }), 250);
    });
    form.addEventListener("change", (event) => {
      if (event.target.tagName === "SELECT" || event.target.type === "checkbox") this.#filter();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      byId("items").querySelector("article")?.focus();
    });
    byId("clear").addEventListener("click", () => {
      form.reset();
      this.#filter();
    });
    byId("previous").addEventListener("click", () => this.turn(-1));
    byId("next").addEventListener("click", () => this.turn(1));
    byId("items").addEventListener("focusin", (event) => {
      this.#current = Number(event.target.closest("article").dataset.question);
    });
    addEventListener("hashchange", () => this.readAddress());
    this.#bindKeys();
  }

  #bindKeys() {
    bindKeys("next and previous question", { j: () => this.step(1), k: () => this.step(-1) });
    bindKeys("next and previous page of questions", {
      ArrowRight: () => isInView() && this.turn(1),
      ArrowLeft: () => isInView() && this.turn(-1),
    });
    bindKeys("search in the questions; Escape leaves the field", { "/": () => byId("text").focus() });
    byId("items").addEventListener("keydown", (event) => {
      const button = event.target.querySelector("button.image");
      if (event.key !== "Enter" || !event.target.matches("article") || !button) return;
      event.preventDefault(); // or the same key would press the button that closes the image
      button.click();
    });
    byId("keys").append(element("dt", {}, element("kbd", {}, "Enter")), element("dd", {}, "enlarge the image of a question"));
  }

  // ------------------------------------------------------------------------------------------------ address

  #formValues() {
    const values = new Map();
    for (const [name, value] of new FormData(form)) values.set(name, [...(values.get(name) ?? []), String(value)]);
    return values;
  }

  /** The state as the part of the address after #: what differs from the start. */
  #address() {
    const parameters = new URLSearchParams();
    for (const [name, values] of this.#formValues()) {
      if (String(values) === String(this.#defaults.get(name))) continue;
      for (const value of values) parameters.append(name, value);
    }
    if (this.#page > 0) parameters.set("page", this.#page + 1);
    if (this.#current !== null) parameters.set("item", this.#questions.index.id[this.#current]);
    return parameters.size ? `#${parameters}` : "#questions";
  }

  #writeAddress({ replace = false } = {}) {
    const address = this.#address();
    if (address === location.hash || (address === "#questions" && !location.hash.includes("="))) return;
    try {
      history[replace ? "replaceState" : "pushState"](null, "", address);
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // a frame without an address of its own
    }
  }

  /** Show what the address says; an address of a section leaves everything as it is. */
  async readAddress() {
    const isState = location.hash.includes("=");
    if (!isState && !["", "#questions"].includes(location.hash) && byId("items").childElementCount) return;
    const parameters = new URLSearchParams(isState ? location.hash.slice(1) : "");
    form.reset();
    for (const control of form.elements) {
      if (!control.name || !parameters.has(control.name)) continue;
      if (control.type === "checkbox") control.checked = parameters.getAll(control.name).includes(control.value);
      else control.value = parameters.get(control.name);
      if (control.closest("#more")) byId("more").open = true;
    }
    this.#current = null;
    if (!(await this.#list())) return;
    this.#page = Math.trunc(Number(parameters.get("page") ?? 1) || 1) - 1;
    const id = parameters.get("item");
    const question = id === null ? undefined : this.#questions.places.get(id);
    const place = this.#listed.indexOf(question);
    if (place >= 0) this.#page = Math.floor(place / PAGE);
    if (!(await this.#draw())) return;
    if (place >= 0) this.#goTo(question);
    else if (isState) form.closest("section").scrollIntoView(); // who was passed the address sees its filters
    if (id !== null && place < 0) {
      byId("shown").textContent = question === undefined ? `no question has the id ${id}` : `${id} does not fit the filters`;
    }
  }

  // ----------------------------------------------------------------------------------------------- drawing

  /** Find the questions that fit; false if another change came in between. */
  async #list() {
    const turn = (this.#turn += 1);
    byId("items").ariaBusy = "true";
    disableUnmeasured(this.#questions);
    this.choice = choiceOf(form, this.#questions);
    const questions = await listed(this.choice, this.#questions);
    if (turn !== this.#turn) return false;
    this.#listed = questions;
    return true;
  }

  /** Draw the page of questions; false if another change came in between. */
  async #draw() {
    const turn = (this.#turn += 1);
    const items = byId("items");
    items.ariaBusy = "true";
    const pages = Math.max(1, Math.ceil(this.#listed.length / PAGE));
    this.#page = Math.min(Math.max(this.#page, 0), pages - 1);
    const first = this.#page * PAGE;
    const chosen = this.#listed.slice(first, first + PAGE);
    await this.#questions.load(chosen);
    if (turn !== this.#turn) return false;
    const { shown } = this.choice;
    const cards = chosen.map((question, place) => {
      const position = first + place + 1;
      return card(this.#questions, question, { shown, position, total: this.#listed.length, enlarge });
    });
    items.classList.toggle("many", shown.length > 2);
    items.replaceChildren(...cards);
    byId("previous").disabled = this.#page === 0;
    byId("next").disabled = this.#page >= pages - 1;
    const [from, to, total] = [first + 1, first + cards.length, this.#listed.length].map((n) => n.toLocaleString("en"));
    byId("shown").textContent = cards.length ? `${from} to ${to} of ${total} questions` : "no question fits";
    byId("rights").textContent = rightsOf(this.#questions, this.#listed, shown);
    showState(form, this.#defaults);
    items.ariaBusy = "false";
    performance.mark("questions drawn");
    return true;
  }

  async #filter(how) {
    this.#current = null;
    if (!(await this.#list())) return;
    this.#page = 0;
    if (await this.#draw()) this.#writeAddress(how);
  }

  #goTo(question) {
    const node = byId("items").querySelector(`[data-question="${question}"]`);
    node.focus({ preventScroll: true });
    node.scrollIntoView();
  }

  // ---------------------------------------------------------------------------------------------- movement

  async turn(step) {
    const pages = Math.ceil(this.#listed.length / PAGE);
    if (this.#page + step < 0 || this.#page + step >= pages) return;
    this.#page += step;
    this.#current = null;
    if (!(await this.#draw())) return;
    this.#writeAddress();
    byId("items").scrollIntoView();
  }

  /** To the next question or the previous one, on another page if need be. */
  async step(by) {
    const place = this.#listed.indexOf(this.#current);
    const start = this.#page * PAGE + (by > 0 ? 0 : -1);
    const target = place < 0 ? start : place + by;
    if (target < 0 || target >= this.#listed.length) return;
    const page = Math.floor(target / PAGE);
    if (page !== this.#page) {
      this.#page = page;
      if (!(await this.#draw())) return;
    }
    this.#current = this.#listed[target];
    this.#goTo(this.#current);
    this.#writeAddress({ replace: true });
  }
}

// ------------------------------------------------------------------------------------------------- the form

function fillSelect(id, entries) {
  for (const [value, text] of entries) byId(id).append(element("option", { value }, text));
}

/** Controls for the runs, labels and properties that the data have; those that it lacks are hidden. */
function fillForm(questions) {
  const { index, runs } = questions;
  const names = (values) => values.map((name) => [name, name]);
  fillSelect("modality", names(index.modalities));
  fillSelect("task", names(index.tasks));
  const runNames = names(runs.map((run) => run.name));
  fillSelect("run", runNames);
  fillSelect("other", runNames);
  const [first, second = first] = index.selected;
  for (const [id, selected] of [["run", first], ["other", second]]) byId(id).options[selected].defaultSelected = true;
  runs.forEach((run, place) => byId("runs").append(runControl(run, place, index.selected.includes(place))));
  const looks = new Set(runs.flatMap((run) => [...new Set(run.look)]));
  fillSelect("look", LOOKS.filter((_, code) => looks.has(code)));
  const has = (column) => runs.some((run) => run[column].some((value) => value > 0));
  hideUnless("look", byId("look").options.length > 1);
  hideUnless("blind", runs.some((run) => run.blind !== NOTHING));
  hideUnless("cut", has("cutOff"));
  hideUnless("seen", index.seen.some((value) => value === 1));
  for (const id of ["other", "relation"]) hideUnless(id, runs.length > 1);
  form.reset();
}

function hideUnless(id, isUseful) {
  byId(id).closest("label").hidden = !isUseful;
}

function runControl(run, place, isShown) {
  const box = element("input", { type: "checkbox", name: "shown", value: run.name, defaultChecked: isShown });
  const any = element("option", { value: "" }, "any outcome");
  const outcomes = OUTCOMES.map((name) => element("option", { value: name }, OUTCOME_NAMES[name]));
  const select = element("select", { name: `outcome ${run.name}`, "aria-label": `outcome of ${run.name}` }, any, ...outcomes);
  const chip = element("span", { className: "chip", "aria-hidden": "true" }, `${place + 1}`);
  const label = element("label", { className: "check" }, box, " ", chip, ` ${run.name}`);
  return element("div", { className: "run" }, label, select);
}

/** Mark the controls that narrow the list, and count those that are folded. */
function showState(filters, defaults) {
  const values = new FormData(filters);
  let folded = 0;
  for (const control of filters.elements) {
    if (!control.name || control.type === "checkbox") continue;
    const isSet = (values.get(control.name) ?? "") !== (defaults.get(control.name)?.[0] ?? "");
    control.classList.toggle("set", isSet);
    if (isSet && control.closest("#more")) folded += 1;
  }
  byId("more").firstElementChild.textContent = folded ? `more filters (${folded} set)` : "more filters";
}

/** Filters that need other runs of the checkpoint are for runs that have them. */
function disableUnmeasured(questions) {
  const run = questions.runs.find(({ name }) => name === byId("run").value);
  byId("blind").disabled = run.blind === NOTHING;
  byId("look").disabled = run.look.every((code) => code === NOTHING);
}

/** How many of the listed questions each shown run answered right. */
function rightsOf(questions, chosen, shown) {
  const texts = shown.map((run) => {
    const answered = chosen.filter((question) => questions.isAnswered(question, run));
    const rights = answered.filter((question) => questions.isRight(question, run)).length;
    const share = answered.length ? ` (${((100 * rights) / answered.length).toFixed(1)} %)` : "";
    return `${questions.runs[run].name} ${rights.toLocaleString("en")} of ${answered.length.toLocaleString("en")}${share}`;
  });
  return texts.length && chosen.length ? `right among these: ${texts.join(", ")}` : "";
}

/** Whether the reader looks at questions, so that arrows may turn their pages. */
function isInView() {
  const { top, bottom } = byId("items").getBoundingClientRect();
  return top < innerHeight && bottom > 0;
}

function enlarge(image) {
  byId("large").src = image.src;
  byId("large").alt = image.alt;
  byId("enlarged").showModal();
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    byId("shown").textContent = "This browser cannot unpack the questions: open the page in one of 2023 or later.";
    return;
  }
  measureHeight(byId("pager"), "--pager");
  await new Browser(await Questions.open()).readAddress();
}
start();
