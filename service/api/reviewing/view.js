/** What is seen. Nothing but text nodes is made of what was asked, answered and said. */

import { compared } from "./words.js";

const $ = (id) => document.getElementById(id);
const rowOf = new WeakMap(); // hit → its button
const kinds = new Set();
const troubles = { send: "", load: "" };
let shown; // the hit whose texts stand there

/** What a hit is called in one line. */
export function title(item) {
  return (item.asked ?? item.stored ?? item.note ?? "").replace(/\s+/g, " ").slice(0, 100) || "(empty)";
}

/** Tell, also those who hear the page; with the hit that is shown now. */
export function say(text, now) {
  $("said").textContent = [text, now ? `Now: ${title(now)}` : ""].filter(Boolean).join(" ");
}

/** What doesn't work now; `kind` is `send` or `load`. */
export function trouble(kind, text) {
  troubles[kind] = text;
  const all = Object.values(troubles).filter(Boolean).join(" ");
  if ($("trouble_text").textContent !== all) $("trouble_text").textContent = all;
  $("again").hidden = !all;
}

/** A verdict that won't be sent again stays to be read. */
export function lost(text) {
  $("refused").append(element("p", "", text));
}

export function count(queue, unsent) {
  const { items, pending } = queue;
  const skipped = items.filter((one) => one.state === "skipped").length;
  const told = [`${pending} waiting`, skipped && `${skipped} skipped`, unsent && `${unsent} not sent yet`];
  $("count").textContent = items.length || queue.isWhole || unsent ? told.filter(Boolean).join(" · ") : "";
}

/** The whole list anew; `choose(item)` when a row is pressed. */
export function rows({ items }, choose) {
  const made = items.map((item) => {
    if (!rowOf.has(item)) rowOf.set(item, row(item, choose));
    const one = document.createElement("li");
    one.append(rowOf.get(item));
    return one;
  });
  $("list").replaceChildren(...made);
  for (const { agent_type: kind } of items) kinds.add(kind);
  $("agent_types").replaceChildren(...[...kinds].sort().map((kind) => Object.assign(element("option"), { value: kind })));
}

export function refreshRow(item) {
  const button = rowOf.get(item);
  if (!button) return;
  button.dataset.state = item.state;
  button.querySelector(".state").textContent = [item.state, item.outcome].filter(Boolean).join(", ");
}

export function current(queue) {
  const item = queue.current;
  for (const old of $("list").querySelectorAll("[aria-current]")) old.removeAttribute("aria-current");
  const button = item && rowOf.get(item);
  button?.setAttribute("aria-current", "true");
  if (button) reveal(button);
  $("review").hidden = !item;
  $("actions").hidden = !item && !queue.canGoBack;
  for (const id of ["correct", "wrong", "skip"]) $(id).disabled = !item;
  $("undo").disabled = !queue.canGoBack;
  $("end").hidden = Boolean(item) || queue.isLoading;
  $("end_text").textContent = ending(queue);
  if (item && item !== shown) details(item);
  shown = item;
}

/** In the list only: the page stays where it is. */
function reveal(button) {
  const list = $("list").parentElement;
  const top = button.offsetTop - list.offsetTop;
  list.scrollTop = Math.min(top, Math.max(list.scrollTop, top + button.offsetHeight - list.clientHeight));
}

function ending({ items, isWhole }) {
  if (!isWhole) return "There may be more: it was not loaded.";
  const skipped = items.some((one) => one.state === "skipped");
  return skipped ? "Nothing is left but what you skipped." : "Nothing is left to judge.";
}

function details(item) {
  const [asked, stored] = item.asked === null ? [null, null] : compared(item.asked, item.stored ?? "");
  $("asked_is").textContent = item.asked === null ? "Asked (not kept)" : "Asked";
  marked($("asked"), asked ?? [{ text: "A user complained; the question wasn't kept." }]);
  marked($("stored"), stored ?? [{ text: item.stored ?? "It had left the cache." }]);
  $("note_part").hidden = item.note === null;
  $("note").textContent = item.note ?? "";
  const isText = typeof item.response === "string";
  const isGone = item.stored === null;
  $("answer").textContent = isGone ? "" : isText ? item.response : JSON.stringify(item.response, null, 2);
  $("answer").classList.toggle("words", isText);
  $("answer").scrollTop = 0;
  $("similarity").textContent = item.similarity.toFixed(3);
  $("threshold").textContent = item.threshold.toFixed(3);
  $("verifier").textContent = item.verifier_score?.toFixed(3) ?? "not asked";
  $("kind").textContent = item.agent_type;
  $("served").textContent = new Date(item.served_at).toLocaleString();
}

function marked(place, parts) {
  place.replaceChildren(...parts.map(({ text, differs }) => (differs ? element("mark", "", text) : text)));
}

function row(item, choose) {
  const button = element("button");
  button.type = "button";
  button.dataset.id = item.id;
  button.append(
    element("span", "question", title(item)),
    element("span", "kind", item.agent_type),
    element("span", "figure", item.similarity.toFixed(3)),
    element("span", "state", item.state),
  );
  button.dataset.state = item.state;
  button.addEventListener("click", () => choose(item));
  return button;
}

function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}
