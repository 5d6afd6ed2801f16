// One question as an element: image, question and options, and the answer of each shown run.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const OUTCOME_NAMES = { correct: "correct", wrong: "wrong", unparsed: "could not be read", error: "was not asked" };

function imagePart(questions, question, enlarge) {
  const address = questions.imageAddress(question);
  if (address === null) {
    const why = questions.hasNoImage(question) ? "no image" : "image not in this page";
    return element("div", { className: "missing" }, why);
  }
  const image = element("img", { src: address, alt: "image of the question" });
  const button = element("button", { type: "button", className: "image", title: "Enlarge (Enter)" }, image);
  button.addEventListener("click", () => enlarge(image));
  return button;
}

/** The id as a link to the question, and a button that copies it. */
function idPart(id) {
  const link = element("a", { className: "id", href: `#${new URLSearchParams({ item: id })}` }, id);
  const button = element("button", { type: "button", className: "copy", "aria-label": `Copy the id ${id}` }, "copy");
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(link);
    await navigator.clipboard?.writeText(id).then(() => (button.textContent = "copied"), () => {});
  });
  return element("span", { className: "ids" }, link, " ", button);
}

function optionsPart(questions, question, shown) {
  const { options, right } = questions.problem(question);
  const items = options.map((text, place) => {
    const choosers = shown.filter((run) => questions.answer(question, run) === LETTERS[place]);
    const item = element("li", {}, `${LETTERS[place]}) ${text}`);
    if (place === right) {
      item.className = "right";
      item.append(element("span", { role: "img", "aria-label": " right answer" }, " \u2713"));
    }
    for (const run of choosers) {
      const name = `chosen by ${questions.runs[run].name}`;
      item.append(" ", element("span", { className: "chip", title: name, role: "img", "aria-label": name }, `${run + 1}`));
    }
    return item;
  });
  return element("ul", { className: "options" }, ...items);
}

function questionPart(questions, question, shown) {
  const { index } = questions;
  const { stem, expected } = questions.problem(question);
  const labels = [index.modalities[index.modality[question]], index.tasks[index.task[question]]];
  if (index.seen[question] === 1) labels.push("image in training");
  const part = element("div", { className: "asked" });
  part.append(element("div", { className: "labels" }, labels.join(" \u00b7 ")));
  part.append(element("p", { className: "question", id: `question-${question}` }, stem));
  part.append(optionsPart(questions, question, shown));
  if (expected) part.append(element("p", { className: "expected" }, `expected: ${expected}`));
  part.append(idPart(index.id[question]));
  return part;
}

function answerPart(questions, question, run) {
  const { name, outcome, tokens, cutOff, look, shownAs } = questions.runs[run];
  const { output, problem, letter, votes } = questions.texts(question, run);
  const kind = OUTCOMES[outcome[question]];
  const read = questions.answer(question, run);
  const details = [];
  if (kind !== "error") details.push(`${tokens[question].toLocaleString("en")} tokens`);
  if (cutOff[question] > 0) details.push("cut off");
  if (letter && letter !== read) details.push(`shown to it as ${letter}`);
  if (votes) details.push(`votes: ${votes}`);
  if (look[question] !== NOTHING) details.push(LOOKS[look[question]][1]);
  const who = element(
    "h3",
    {},
    element("span", { className: "chip", "aria-hidden": "true" }, `${run + 1}`),
    ` ${name} `,
    element("span", { className: `outcome ${kind}` }, OUTCOME_NAMES[kind] + (read ? `: ${read}` : "")),
  );
  const prompt = element("pre", {}, questions.prompt(question, run));
  const summary = problem === null ? "prompt" : "prompt, with the options in another order";
  return element(
    "div",
    { className: "answer" },
    who,
    element("div", { className: "labels" }, [shownAs, ...details].filter(Boolean).join(" \u00b7 ")),
    element("pre", { className: "output" }, output),
    element("details", {}, element("summary", {}, summary), prompt),
  );
}

/** The element of a question whose texts are loaded. */
function card(questions, question, { shown, position, total, enlarge }) {
  const answered = shown.filter((run) => questions.isAnswered(question, run));
  const properties = {
    className: "item",
    tabIndex: -1,
    "aria-labelledby": `question-${question}`,
    "aria-posinset": position,
    "aria-setsize": total,
  };
  const node = element(
    "article",
    properties,
    imagePart(questions, question, enlarge),
    questionPart(questions, question, answered),
    element("div", { className: "answers" }, ...answered.map((run) => answerPart(questions, question, run))),
  );
  return node;
}
