// The item browser of the report: its filters, and what a list of questions is.

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

function runControl(run, place, isShown) {
  const box = element("input", { type: "checkbox", name: "shown", value: run.name, defaultChecked: isShown });
  const any = element("option", { value: "" }, "any outcome");
  const outcomes = OUTCOMES.map((name) => element("option", { value: name }, OUTCOME_NAMES[name]));
  const select = element("select", { name: `outcome ${run.name}`, "aria-label": `outcome of ${run.name}` }, any, ...outcomes);
  const chip = element("span", { className: "chip", "aria-hidden": "true" }, `${place + 1}`);
  const label = element("label", { className: "check" }, box, " ", chip, ` ${run.name}`);
  return element("div", { className: "run" }, label, select);
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

function enlarge(image) {
  byId("large").src = image.src;
  byId("large").alt = image.alt;
  byId("enlarged").showModal();
}

class QuestionSource {
  noun = "questions";
  home = "#questions";
  #questions;
  #choice;

  constructor(questions) {
    this.#questions = questions;
    byId("items").addEventListener("keydown", (event) => {
      const button = event.target.querySelector("button.image");
      if (event.key !== "Enter" || !event.target.matches("article") || !button) return;
      event.preventDefault(); // or the same key would press the button that closes the image
      button.click();
    });
    const term = element("dt", {}, element("kbd", {}, "Enter"));
    byId("keys").append(term, element("dd", {}, "enlarge the image of a question"));
  }

  fill() {
    fillForm(this.#questions);
  }

  list() {
    disableUnmeasured(this.#questions);
    this.#choice = choiceOf(form, this.#questions);
    return listed(this.#choice, this.#questions);
  }

  load(items) {
    return this.#questions.load(items);
  }

  card(question, position, total) {
    return card(this.#questions, question, { shown: this.#choice.shown, position, total, enlarge });
  }

  drawn(items) {
    const { shown } = this.#choice;
    byId("items").classList.toggle("many", shown.length > 2);
    byId("rights").textContent = rightsOf(this.#questions, items, shown);
  }

  idOf(question) {
    return this.#questions.index.id[question];
  }

  placeOf(id) {
    return this.#questions.places.get(id);
  }
}

openList(async () => new QuestionSource(await Questions.open()));
