/** The page: keys and buttons in, texts out. Texts are set as text only: questions, answers and notes are anybody's. */

import * as calls from "./calls.js";
import { Outbox } from "./outbox.js";
import { Queue } from "./queue.js";
import * as view from "./view.js";

const $ = (id) => document.getElementById(id);
const COMMANDS = {
  c: () => judge("correct"),
  w: () => judge("wrong"),
  s: skip,
  u: back,
  j: () => move(1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
};

const REPEATED = new Set(["j", "k", "ArrowDown", "ArrowUp"]); // a key held down judges once

const RETRY_S = 5;

let retry = null;
let taken = new Map(); // id → verdict, since the queue was loaded anew
const outbox = new Outbox(calls.judge, { taken: onTaken, refused: onRefused, failed: onFailed });
const queue = new Queue(calls.pending, (id) => outbox.of(id) ?? taken.get(id));

function judge(verdict) {
  if (!queue.current) return;
  const item = queue.judge(verdict);
  Object.assign(item, { outcome: "not sent yet" });
  outbox.put(item.id, verdict);
  view.say(`Judged ${verdict}.`, queue.current);
  show(item);
}

function skip() {
  const item = queue.current;
  if (!item) return;
  queue.skip();
  view.say("Skipped.", queue.current);
  show(item);
}

function back() {
  const item = queue.back();
  if (item) view.say(`Judged ${item.state} before: judge it again, or go on.`, item);
  else view.say("Nothing was judged since the page was opened.");
  show();
}

function move(by) {
  queue.move(by);
  view.say("", queue.current);
  show();
}

function onTaken(id, verdict, { quarantined }) {
  taken.set(id, verdict);
  const item = queue.find(id);
  if (item && !item.wasTaken) queue.pending -= 1;
  view.trouble("send", "");
  if (item) {
    if (verdict === "wrong") view.say(quarantined ? "The answer left the cache." : "That answer is in the cache no more.");
    else if (item.left) view.say("What left the cache stays out until it is stored again.");
    const outcome = verdict === "wrong" && quarantined ? "left the cache" : "";
    Object.assign(item, { wasTaken: true, left: item.left || quarantined });
    if (item.state === verdict) item.outcome = outcome;
  }
  show(item);
}

function onRefused(id, verdict, refusal) {
  const item = queue.find(id);
  if (item) Object.assign(item, { state: "refused", outcome: refusal.message });
  view.lost(`“${verdict}” was not taken for ${item ? view.title(item) : id}: ${refusal.message}`);
  show(item);
}

function onFailed(refusal, againS) {
  if (refusal.needsKey) askForKey(refusal);
  else view.trouble("send", `${waiting()} not sent: ${refusal.message}. Next try in ${againS} s.`);
  show();
}

function waiting() {
  return outbox.size === 1 ? "1 verdict is" : `${outbox.size} verdicts are`;
}

/** Shows where the reader is now; `changed` is a hit whose row is another now. */
function show(changed) {
  if (changed) view.refreshRow(changed);
  view.count(queue, outbox.size);
  view.current(queue);
  loadAhead();
}

/** One load at a time; a failure waits for the reader, or for the next key. */
async function loadAhead() {
  if (queue.isLoading) return;
  await loading(async () => {
    while (await queue.ahead()) {
      view.trouble("load", "");
      shown();
    }
  });
}

async function reload(agentType) {
  taken = new Map();
  view.say("Loading…");
  await loading(async () => {
    await queue.reload(agentType);
    view.trouble("load", "");
    $("key_form").hidden = true;
    $("forget").hidden = calls.key.get() === null;
    view.say("", queue.current);
    outbox.resume();
  });
  shown();
  loadAhead();
}

async function loading(work) {
  try {
    await work();
  } catch (refusal) {
    if (!(refusal instanceof calls.Refusal)) throw refusal;
    if (refusal.needsKey) askForKey(refusal);
    else tryLater(refusal);
  }
}

function tryLater(refusal) {
  clearTimeout(retry);
  retry = refusal.passes ? setTimeout(again, 1000 * RETRY_S) : null;
  const then = refusal.passes ? ` Next try in ${RETRY_S} s.` : "";
  view.trouble("load", `Hits were not loaded: ${refusal.message}.${then}`);
}

function shown() {
  view.rows(queue, (item) => {
    queue.go(queue.items.indexOf(item));
    view.say("", item);
    show();
  });
  view.count(queue, outbox.size);
  view.current(queue);
}

function askForKey(refusal) {
  const isNew = $("key_form").hidden;
  $("key_form").hidden = false;
  $("key_why").textContent = calls.key.get() === null && refusal.status === 401 ? "" : refusal.message;
  view.say(outbox.size ? `${waiting()} kept until there is a key.` : "An admin key is needed.");
  if (isNew) $("key").focus();
}

function onKey(event) {
  const typing = event.target.closest("input:not([type=checkbox])");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing || !$("keys_on").checked) return;
  if (key === "?") toggleHelp();
  else if ($("help").open || !Object.hasOwn(COMMANDS, key)) return;
  else if (key.startsWith("Arrow") && event.target.closest(".text")) return; // it scrolls
  else if (!event.repeat || REPEATED.has(key)) COMMANDS[key]();
  event.preventDefault();
}

function toggleHelp() {
  if ($("help").open) $("help").close();
  else $("help").showModal();
}

function again() {
  clearTimeout(retry);
  if (queue.items.length) {
    outbox.resume();
    loadAhead();
  } else reload();
}

document.addEventListener("keydown", onKey);
for (const [id, key] of Object.entries({ correct: "c", wrong: "w", skip: "s", undo: "u" })) {
  $(id).addEventListener("click", COMMANDS[key]);
}
$("again").addEventListener("click", again);
$("reload").addEventListener("click", () => reload());
$("ask_help").addEventListener("click", toggleHelp);
$("forget").addEventListener("click", () => {
  calls.key.forget();
  location.reload();
});
$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  $("agent_type").blur();
  reload($("agent_type").value);
});
$("key_form").addEventListener("submit", (event) => {
  event.preventDefault();
  calls.key.set($("key").value.trim());
  $("key").value = "";
  $("key").blur();
  $("key_form").hidden = true;
  if (queue.items.length) again();
  else reload();
});
addEventListener("beforeunload", (event) => {
  if (outbox.size) event.preventDefault();
});
reload();
