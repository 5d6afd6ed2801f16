// The questions in the page. Names of columns are those of items/browser.py.

const NOTHING = -1; // in a column: unknown, none, or the run has no answer to this question
const NO_IMAGE = -2;
const OUTCOMES = ["correct", "wrong", "unparsed", "error"];
const CORRECT = 0;

class Questions {
  /** Read the index; what models wrote stays packed until it is needed. */
  static async open() {
    return new Questions(await unpack(takeBlock("index")), new Blocks(takeBlock("outputs")), takeBlock("images"));
  }

  #blocks; // of what models wrote
  #images;

  constructor(index, blocks, images) {
    this.index = index;
    this.runs = index.runs;
    this.count = index.id.length;
    this.places = new Map(index.id.map((id, question) => [id, question]));
    this.#blocks = blocks;
    this.#images = images === "" ? [] : images.split("\n");
  }

  /** What a question asks: `stem` without the options, `options`, index of the `right` one, `expected` if it has none. */
  problem(question) {
    const [text, end, options, right, expected] = this.index.problems[this.index.problem[question]];
    return { text, stem: text.slice(0, end).trim(), options, right, expected };
  }

  isAnswered(question, run) {
    return this.runs[run].outcome[question] !== NOTHING;
  }

  isRight(question, run) {
    return this.runs[run].outcome[question] === CORRECT;
  }

  /** The letter or text that was read from an answer; null if none was. */
  answer(question, run) {
    return this.index.read[this.runs[run].read[question]] ?? null;
  }

  /** The whole prompt as a run saw it, without the marks of the model's own template. */
  prompt(question, run) {
    const wording = this.index.wordings[this.runs[run].wording[question]] ?? "{Question}";
    const problem = this.texts(question, run).problem ?? this.problem(question).text;
    return wording.replace("{Question}", () => problem);
  }

  /** The address of an image; null if the page lacks it. */
  imageAddress(question) {
    const image = this.#images[this.index.image[question]];
    return image === undefined ? null : `data:image/jpeg;base64,${image}`;
  }

  hasNoImage(question) {
    return this.index.image[question] === NO_IMAGE;
  }

  /** Inflate what models wrote about these questions. */
  async load(chosen) {
    await this.#blocks.load(chosen, this.index.perBlock);
  }

  /** Output, problem as it was shown, letter as it was shown and votes of a loaded answer. */
  texts(question, run) {
    const [output = "", problem = null, letter = null, votes = ""] =
      this.#blocks.entry(question, this.index.perBlock)[run];
    return { output, problem, letter, votes };
  }
}
