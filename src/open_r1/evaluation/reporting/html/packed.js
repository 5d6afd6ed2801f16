// Data in the page as items/packing.py writes them.

/** The text of a block of data in the page, which is then removed: it is as large as all the rest. */
function takeBlock(id) {
  const node = byId(id);
  const text = node.textContent;
  node.remove();
  return text;
}

/** The value of a block of base64 of deflated JSON. */
async function unpack(block) {
  const text = atob(block);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(stream).json();
}

/** Packed blocks, a line each, of as many entries each, which are inflated when they are needed. */
class Blocks {
  #packed;
  #contents = new Map(); // number of a block -> its content, or the promise of it

  constructor(text) {
    this.#packed = text.split("\n");
  }

  async load(entries, perBlock) {
    const blocks = new Set(entries.map((entry) => Math.floor(entry / perBlock)));
    await Promise.all([...blocks].map((block) => this.#open(block)));
  }

  async #open(block) {
    if (!this.#contents.has(block)) {
      const opening = unpack(this.#packed[block]).then((content) => this.#contents.set(block, content));
      this.#contents.set(block, opening);
    }
    await this.#contents.get(block);
  }

  /** An entry of a block that is loaded. */
  entry(number, perBlock) {
    return this.#contents.get(Math.floor(number / perBlock))[number % perBlock];
  }
}
