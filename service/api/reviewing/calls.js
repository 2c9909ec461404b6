/** Calls of /v1/reviews. The key lives as long as the tab. */

const KEY = "semcached.reviews.key";
const PATH = "/v1/reviews";
const PAGE = 25;
const LONGEST_MS = 20_000;

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** The service's no, or no answer at all: then `status` is 0. */
export class Refusal extends Error {
  constructor(status, detail, retryAfterS = 0) {
    super(status ? `${status}: ${detail}` : detail);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }

  get needsKey() {
    return this.status === 401 || this.status === 403;
  }

  /** Whether the same call may go well later. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/** A page of hits: `{items, pending, cursor}`. */
export function pending(agentType, cursor) {
  const asked = new URLSearchParams({ status: "pending", limit: PAGE });
  if (agentType) asked.set("agent_type", agentType);
  if (cursor !== null) asked.set("cursor", cursor);
  return call(`${PATH}?${asked}`, {});
}

/** `verdict` is `correct` or `wrong`. */
export function judge(id, verdict) {
  return call(`${PATH}/${encodeURIComponent(id)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ verdict }),
  });
}

async function call(path, { headers, ...more }) {
  const known = key.get();
  let answer, text;
  try {
    answer = await fetch(path, {
      ...more,
      headers: { ...headers, ...(known === null ? {} : { Authorization: `Bearer ${known}` }) },
      signal: AbortSignal.timeout(LONGEST_MS),
      credentials: "omit",
    });
    text = await answer.text();
  } catch (error) {
    throw new Refusal(0, error.name === "TimeoutError" ? "the service didn't answer in time" : "no connection");
  }
  if (answer.ok) return read(answer.status, text);
  throw new Refusal(answer.status, detail(text), Number(answer.headers.get("Retry-After")) || 0);
}

function read(status, text) {
  try {
    return JSON.parse(text, exactly);
  } catch {
    throw new Refusal(502, `${status} without JSON: is this semcached?`);
  }
}

function detail(text) {
  try {
    return String(JSON.parse(text).detail);
  } catch {
    return "no reason was given";
  }
}

/** Numbers too large for JavaScript stay as they were written, where the browser can. */
function exactly(_, value, context) {
  const exact = typeof value !== "number" || Math.abs(value) <= Number.MAX_SAFE_INTEGER;
  return exact || !context?.source || !JSON.rawJSON ? value : JSON.rawJSON(context.source);
}
