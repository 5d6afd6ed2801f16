// A list of items in pages: filters, the current item, and all of it in the address of the page. Items are numbers.
//
// What a list is of, its `source`, says
//   noun, home: what its items are called, and the address of its section;
//   fill(): fills the form of filters;  list(): the items that fit, in order;  load(items): inflates their texts;
//   card(item, position, total): its element, an article;  drawn(items): what else is to be shown about them;
//   idOf(item), placeOf(id): the id of an item in addresses, and back (undefined if there is none).

const PAGE = 20;
const form = byId("filters");

class PagedList {
  #source;
  #defaults; // name of a control -> its values at first
  #listed = []; // the items that fit, in order
  #page = 0;
  #current = null; // the item that the keyboard is at
  #turn = 0; // of several changes only the last one is drawn
  #measurePager = measureHeight(byId("pager"), "--pager");

  constructor(source) {
    this.#source = source;
    source.fill();
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
      this.#current = Number(event.target.closest("article").dataset.item);
    });
    addEventListener("hashchange", () => this.readAddress());
    this.#bindKeys();
  }

  #bindKeys() {
    const { noun } = this.#source;
    bindKeys(`next and previous ${noun.slice(0, -1)}`, { j: () => this.step(1), k: () => this.step(-1) });
    bindKeys(`next and previous page of ${noun}`, {
      ArrowRight: () => isInView() && this.turn(1),
      ArrowLeft: () => isInView() && this.turn(-1),
    });
    bindKeys(`search in the ${noun}; Escape leaves the field`, { "/": () => byId("text").focus() });
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
    if (this.#current !== null) parameters.set("item", this.#source.idOf(this.#current));
    return parameters.size ? `#${parameters}` : this.#source.home;
  }

  #writeAddress({ replace = false } = {}) {
    const address = this.#address();
    if (address === location.hash || (address === this.#source.home && !location.hash.includes("="))) return;
    try {
      history[replace ? "replaceState" : "pushState"](null, "", address);
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // a frame without an address of its own
    }
  }

  /** Show what the address says; an address of a section leaves everything as it is. */
  async readAddress() {
    const isState = location.hash.includes("=");
    if (!isState && !["", this.#source.home].includes(location.hash) && byId("items").childElementCount) return;
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
    const item = id === null ? undefined : this.#source.placeOf(id);
    const place = this.#listed.indexOf(item);
    if (place >= 0) this.#page = Math.floor(place / PAGE);
    if (!(await this.#draw())) return;
    if (place >= 0) this.#goTo(item);
    else if (isState) form.closest("section").scrollIntoView(); // who was passed the address sees its filters
    if (id !== null && place < 0) {
      byId("shown").textContent = item === undefined ? `no ${this.#source.noun.slice(0, -1)} has the id ${id}` : `${id} does not fit the filters`;
    }
  }

  // ----------------------------------------------------------------------------------------------- drawing

  /** Find the items that fit; false if another change came in between. */
  async #list() {
    const turn = (this.#turn += 1);
    byId("items").ariaBusy = "true";
    const items = await this.#source.list();
    if (turn !== this.#turn) return false;
    this.#listed = items;
    return true;
  }

  /** Draw the page of items; false if another change came in between. */
  async #draw() {
    const turn = (this.#turn += 1);
    const feed = byId("items");
    feed.ariaBusy = "true";
    const pages = Math.max(1, Math.ceil(this.#listed.length / PAGE));
    this.#page = Math.min(Math.max(this.#page, 0), pages - 1);
    const first = this.#page * PAGE;
    const chosen = this.#listed.slice(first, first + PAGE);
    await this.#source.load(chosen);
    if (turn !== this.#turn) return false;
    const cards = chosen.map((item, place) => {
      const node = this.#source.card(item, first + place + 1, this.#listed.length);
      node.dataset.item = item;
      return node;
    });
    feed.replaceChildren(...cards);
    byId("previous").disabled = this.#page === 0;
    byId("next").disabled = this.#page >= pages - 1;
    const [from, to, total] = [first + 1, first + cards.length, this.#listed.length].map((n) => n.toLocaleString("en"));
    const { noun } = this.#source;
    byId("shown").textContent = cards.length ? `${from} to ${to} of ${total} ${noun}` : `no ${noun.slice(0, -1)} fits`;
    this.#source.drawn(this.#listed);
    showState(form, this.#defaults);
    feed.ariaBusy = "false";
    performance.mark("list drawn");
    return true;
  }

  async #filter(how) {
    this.#current = null;
    if (!(await this.#list())) return;
    this.#page = 0;
    if (await this.#draw()) this.#writeAddress(how);
  }

  #goTo(item) {
    const node = byId("items").querySelector(`[data-item="${item}"]`);
    node.focus({ preventScroll: true });
    this.#measurePager(); // what is shown in it has changed
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

  /** To the next item or the previous one, on another page if need be. */
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

function hideUnless(id, isUseful) {
  byId(id).closest("label").hidden = !isUseful;
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

/** Whether the reader looks at items, so that arrows may turn their pages. */
function isInView() {
  const { top, bottom } = byId("items").getBoundingClientRect();
  return top < innerHeight && bottom > 0;
}

/** Open the list of a source, which `open` reads from the page. */
async function openList(open) {
  if (typeof DecompressionStream === "undefined") {
    byId("shown").textContent = "This browser cannot unpack the questions: open the page in one of 2023 or later.";
    return;
  }
  await new PagedList(await open()).readAddress();
}
