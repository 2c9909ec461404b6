/** Verdicts on their way: one request at a time; each stays here until it is taken, or said to be lost. */

const KEPT = "semcached.reviews.outbox";
const LONGEST_S = 30;

export class Outbox {
  #send;
  #told;
  #waiting = new Map(kept()); // id → verdict, in the order of sending
  #going = null; // [id, verdict]
  #failures = 0;
  #timer = null;
  #halted = true;

  /**
   * `send(id, verdict)` sends one. Of `told`: `taken(id, verdict, answer)`, `refused(id, verdict, refusal)` when it is given
   * up, `failed(refusal, againS)` when it will be sent again, after so many seconds or, null, after `resume`.
   */
  constructor(send, told) {
    this.#send = send;
    this.#told = told;
  }

  /** How many aren't taken yet. */
  get size() {
    return this.#all().size;
  }

  /** What was said of a hit and isn't taken yet. */
  of(id) {
    return this.#all().get(id);
  }

  /** The later verdict on a hit takes the place of one that still waits. */
  put(id, verdict) {
    this.#waiting.delete(id);
    if (this.#going?.[0] !== id || this.#going[1] !== verdict) this.#waiting.set(id, verdict);
    this.#keep();
    this.#next();
  }

  /** Send what waits now. */
  resume() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#halted = false;
    this.#next();
  }

  async #next() {
    if (this.#going || this.#halted || this.#timer !== null || !this.#waiting.size) return;
    const [id, verdict] = (this.#going = this.#waiting.entries().next().value);
    this.#waiting.delete(id);
    try {
      const answer = await this.#send(id, verdict);
      this.#settle();
      this.#told.taken(id, verdict, answer);
    } catch (refusal) {
      this.#failed(id, verdict, refusal);
    }
    this.#next();
  }

  #settle() {
    this.#going = null;
    this.#failures = 0;
    this.#keep();
  }

  #failed(id, verdict, refusal) {
    if (!refusal.needsKey && !refusal.passes) {
      this.#settle();
      this.#told.refused(id, verdict, refusal);
      return;
    }
    this.#going = null;
    if (!this.#waiting.has(id)) this.#waiting = new Map([[id, verdict], ...this.#waiting]);
    this.#halted = refusal.needsKey;
    const againS = Math.min(LONGEST_S, Math.max(refusal.retryAfterS, 2 ** this.#failures++));
    if (!refusal.needsKey) this.#timer = setTimeout(() => this.resume(), 1000 * againS);
    this.#told.failed(refusal, refusal.needsKey ? null : againS);
  }

  #all() {
    return new Map([...(this.#going ? [this.#going] : []), ...this.#waiting]);
  }

  #keep() {
    sessionStorage.setItem(KEPT, JSON.stringify([...this.#all()]));
  }
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
  } catch {
    return [];
  }
}
