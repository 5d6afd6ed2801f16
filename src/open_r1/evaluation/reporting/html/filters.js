// Which questions are listed, and in which order. A choice is what the form says, in numbers of the data.

/** The choice in the form of filters. */
function choiceOf(form, questions) {
  const values = new FormData(form);
  const text = (name) => String(values.get(name) ?? "");
  const runNames = questions.runs.map((run) => run.name);
  const limit = (name, otherwise) => (text(name) === "" ? otherwise : Number(text(name)));
  return {
    text: text("text").trim(),
    modality: questions.index.modalities.indexOf(text("modality")),
    task: questions.index.tasks.indexOf(text("task")),
    shown: values.getAll("shown").map((name) => runNames.indexOf(String(name))),
    outcomes: runNames.map((name) => OUTCOMES.indexOf(text(`outcome ${name}`))),
    run: runNames.indexOf(text("run")),
    other: runNames.indexOf(text("other")),
    relation: text("relation"),
    from: limit("from", 0),
    to: limit("to", Infinity),
    cut: text("cut"),
    blind: text("blind"),
    look: text("look"),
    seen: text("seen"),
    sort: text("sort"),
  };
}

const RELATIONS = {
  outcome: (questions, question, run, other) => {
    return questions.runs[run].outcome[question] !== questions.runs[other].outcome[question];
  },
  answer: (questions, question, run, other) => {
    return questions.runs[run].read[question] !== questions.runs[other].read[question];
  },
  won: (questions, question, run, other) => questions.isRight(question, run) && !questions.isRight(question, other),
  lost: (questions, question, run, other) => !questions.isRight(question, run) && questions.isRight(question, other),
  both: (questions, question, run, other) => questions.isRight(question, run) && questions.isRight(question, other),
  neither: (questions, question, run, other) => !questions.isRight(question, run) && !questions.isRight(question, other),
};

/** What a question has to fulfil, as functions of its number; without the search for a text. */
function conditionsOf(choice, questions) {
  const { index, runs } = questions;
  const conditions = [];
  const column = (values, wanted) => wanted !== NOTHING && conditions.push((question) => values[question] === wanted);
  column(index.modality, choice.modality);
  column(index.task, choice.task);
  choice.outcomes.forEach((outcome, run) => column(runs[run].outcome, outcome));
  if (choice.shown.length) {
    conditions.push((question) => choice.shown.some((run) => questions.isAnswered(question, run)));
  }
  if (choice.seen) column(index.seen, choice.seen === "yes" ? 1 : 0);
  const run = runs[choice.run];
  const isMeasured = (values) => (question) => values[question] !== NOTHING;
  if (choice.relation && choice.other !== NOTHING) {
    conditions.push(isMeasured(run.outcome), isMeasured(runs[choice.other].outcome));
    conditions.push((question) => RELATIONS[choice.relation](questions, question, choice.run, choice.other));
  }
  if (choice.from > 0 || choice.to < Infinity) {
    conditions.push(isMeasured(run.outcome));
    conditions.push((question) => run.tokens[question] >= choice.from && run.tokens[question] <= choice.to);
  }
  if (choice.cut) {
    conditions.push(isMeasured(run.cutOff), (question) => run.cutOff[question] > 0 === (choice.cut === "yes"));
  }
  if (choice.blind && run.blind !== NOTHING) {
    conditions.push(isMeasured(runs[run.blind].outcome));
    conditions.push((question) => questions.isRight(question, run.blind) === (choice.blind === "right"));
  }
  if (choice.look) column(run.look, LOOKS.findIndex(([name]) => name === choice.look));
  return conditions;
}

// In the order of the codes in items/browser.py.
const LOOKS = [
  ["consistent-relies", "consistent, relies on the image"],
  ["consistent-not", "consistent, does not rely on it"],
  ["inconsistent-relies", "inconsistent, relies on the image"],
  ["inconsistent-not", "inconsistent, does not rely on it"],
  ["relies", "relies on the image"],
  ["not", "does not rely on the image"],
];

/** Those of the questions whose id, problem or outputs of the shown runs hold the text, whatever its case. */
async function search(chosen, choice, questions) {
  if (!choice.text) return chosen;
  const pattern = new RegExp(choice.text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "i");
  await questions.load(chosen);
  return chosen.filter((question) => {
    const { text, expected } = questions.problem(question);
    if (pattern.test(questions.index.id[question]) || pattern.test(text) || pattern.test(expected)) return true;
    return choice.shown.some((run) => pattern.test(questions.texts(question, run).output));
  });
}

/** A value by which questions are ordered, the smallest first; null for the order of the file. */
function rankOf(choice, questions) {
  const { runs } = questions;
  const rights = (question) => choice.shown.filter((run) => questions.isRight(question, run)).length;
  const tokens = runs[choice.run].tokens;
  const disagreement = (question) => {
    const answered = choice.shown.filter((run) => questions.isAnswered(question, run));
    const outcomes = new Set(answered.map((run) => runs[run].outcome[question]));
    const answers = new Set(answered.map((run) => runs[run].read[question]));
    return -10 * outcomes.size - answers.size;
  };
  return {
    fewest: rights,
    most: (question) => -rights(question),
    longest: (question) => -tokens[question],
    shortest: (question) => (tokens[question] === NOTHING ? Infinity : tokens[question]),
    disagreement,
  }[choice.sort];
}

function sorted(chosen, choice, questions) {
  if (choice.sort === "id") {
    const { compare } = new Intl.Collator("en", { numeric: true });
    return [...chosen].sort((first, second) => compare(questions.index.id[first], questions.index.id[second]));
  }
  const rank = rankOf(choice, questions);
  if (!rank) return chosen;
  const ranks = new Map(chosen.map((question) => [question, rank(question)]));
  return [...chosen].sort((first, second) => ranks.get(first) - ranks.get(second) || first - second);
}

/** The numbers of the questions that fit, in order. */
async function listed(choice, questions) {
  const conditions = conditionsOf(choice, questions);
  const fitting = [];
  for (let question = 0; question < questions.count; question += 1) {
    if (conditions.every((fits) => fits(question))) fitting.push(question);
  }
  return sorted(await search(fitting, choice, questions), choice, questions);
}
