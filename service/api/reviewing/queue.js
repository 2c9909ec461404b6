/** The hits on the page and where the reader is; loads further pages. */

const AHEAD = 8;

export class Queue {
  #load;
  #verdictOf;
  #loading = null;
  #isLoaded = false;
  #round = 0;
  #judged = []; // hits, in the order of judging
  items = [];
  at = 0;
  pending = 0;
  cursor = null;
  agentType = "";

  /** `load(agentType, cursor)` gets a page, `verdictOf(id)` what was said of a hit and isn't taken yet. */
  constructor(load, verdictOf) {
    this.#load = load;
    this.#verdictOf = verdictOf;
  }

  /** The hit to judge; undefined: there is none left, or none at all. */
  get current() {
    return this.items[this.at];
  }

  get isLoading() {
    return this.#loading !== null;
  }

  /** Whether there are no further pages. */
  get isWhole() {
    return this.#isLoaded && this.cursor === null;
  }

  get canGoBack() {
    return this.#judged.length > 0;
  }

  /** Begin anew. Raises what `load` raises. */
  async reload(agentType = this.agentType) {
    this.#round += 1;
    this.#isLoaded = false;
    Object.assign(this, { agentType, items: [], at: 0, cursor: null });
    this.#loading = null;
    await this.#page();
  }

  /** Load a page if few are left ahead; whether there was one to load. */
  async ahead() {
    const left = this.items.slice(this.at).filter(open).length;
    if (this.cursor === null || left >= AHEAD) return false;
    await this.#page();
    return true;
  }

  /** Note a verdict and go to the next hit without one. */
  judge(verdict) {
    const item = this.current;
    item.state = verdict;
    this.#judged = [...this.#judged.filter((one) => one !== item), item];
    this.at = this.#nextOpen(this.at);
    return item;
  }

  skip() {
    this.current.state ||= "skipped";
    this.at = this.#nextOpen(this.at + 1);
  }

  /** To the hit judged last, again and again; undefined: there is none. */
  back() {
    const item = this.#judged.pop();
    if (item === undefined) return undefined;
    if (!this.items.includes(item)) this.items.unshift(item);
    this.at = this.items.indexOf(item);
    return item;
  }

  /** By so many places; from the end, too. */
  move(by) {
    if (this.current || by < 0) this.go(this.at + by);
  }

  go(at) {
    if (this.items.length) this.at = Math.max(0, Math.min(this.items.length - 1, at));
  }

  find(id) {
    return this.items.find((one) => one.id === id) ?? this.#judged.find((one) => one.id === id);
  }

  /** From there on, else from the beginning; behind the last where each has a verdict or was skipped. */
  #nextOpen(from) {
    const later = this.items.findIndex((one, at) => at >= from && open(one));
    const any = later < 0 ? this.items.findIndex(open) : later;
    return any < 0 ? this.items.length : any;
  }

  #page() {
    if (this.#loading === null) {
      const mine = this.#fetched(this.#round).finally(() => {
        if (this.#loading === mine) this.#loading = null;
      });
      this.#loading = mine;
    }
    return this.#loading;
  }

  async #fetched(round) {
    let page;
    try {
      page = await this.#load(this.agentType, this.cursor);
    } catch (refusal) {
      if (round === this.#round) throw refusal;
      return;
    }
    if (round === this.#round) this.#add(page);
  }

  #add({ items, cursor, pending }) {
    const known = new Set(this.items.map((one) => one.id));
    const ended = this.current === undefined;
    for (const one of items.filter((one) => !known.has(one.id))) {
      this.items.push({ ...one, state: this.#verdictOf(one.id) ?? "" });
    }
    this.#isLoaded = true;
    Object.assign(this, { cursor, pending });
    if (ended) this.at = this.#nextOpen(this.at);
  }
}

function open(item) {
  return item.state === "";
}
