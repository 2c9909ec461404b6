"""What `semcached.prompts` saves of an agent's input, by the providers' caching rules as a simulator.

    python -m bench.prompts --data ../shared/data [--output FILE.json]

A real run of 20 requests (tau-bench's airline agent): its calls and their results, the tools' schemas as the
calls of all runs show them, and a long system prompt: instructions of ours and other runs as examples.
Tokens are four characters each; prices are prices.json's. No provider was called.
The cases of `hard` are as the proxy marks them: where it can't know, or where nothing can be read again.
"""

import argparse
import gzip
import json
import platform
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from semcached.prompts import anthropic, marked, openai, price_file, savings
from semcached.prompts.prefix import Api
from tests.provider.rules import PromptCache

RESULTS = Path(__file__).parent / "results" / "prompts.json"
CALLS = Path("tau_airline_tool_calls/public/calls.jsonl.gz")
SESSION = "33-0"
TURNS = 20
EXAMPLES_CHARACTERS = 16_000
PAUSE_S = 20.0
CHAT = "a plain chat of 20 turns"
MODELS: list[tuple[Api, str]] = [
    ("messages", "claude-opus-5-5"),
    ("messages", "claude-sonnet-4-5"),
    ("messages", "claude-haiku-4-5"),
    ("chat", "gpt-6-sol"),
    ("chat", "gpt-5.6"),
    ("chat", "gpt-5"),
    ("chat", "gpt-4o"),
    ("responses", "gpt-6.1-sol"),
]
INSTRUCTIONS = """\
You are an airline's support agent. Help with reservations: look up, book, change, cancel, refund.
Say what you found before you change anything, and change nothing without the customer's yes.
One tool at a time. Never make up a reservation, a price or a rule; look them up.
Basic economy can't be changed. Cancel only within a day of booking, or when the airline cancelled, or with
insurance. Baggage depends on membership and cabin. Refunds go to what was paid with.
Hand over to a person what isn't in your power, with a summary."""

Json = dict[str, Any]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments.add_argument("--output", type=Path, default=RESULTS)
    given = arguments.parse_args()
    if not (given.data / CALLS).exists():
        raise SystemExit(f"{given.data / CALLS} isn't there; --data says where the data sets are")
    with gzip.open(given.data / CALLS, "rt", encoding="utf-8") as file:
        calls = [json.loads(line) for line in file]
    rows = [row for api, model in MODELS for row in measure(api, model, calls)]
    document = {
        "command": "python -m bench.prompts --data ../shared/data",
        "machine": f"no figure depends on it; Python {platform.python_version()}",
        "prices": price_file().as_of,
        "turns": TURNS,
        "pause_s": PAUSE_S,
        "rows": rows,
    }
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    table(rows)


def measure(api: Api, model: str, calls: list[Json]) -> list[Json]:
    """One agent's run; customers' first questions; the run with tools in disorder, with pauses; `hard`."""
    run = requests(api, model, calls)
    firsts = [first(api, model, calls, number) for number in range(TURNS)]
    hour: dict[str, Any] = {"ttl": "1h", "history_ttl": "1h"} if api == "messages" else {}
    return [
        row("a run of 20 requests", api, run, PAUSE_S, helper(api)),
        row("a run, as the proxy marks it", api, run, PAUSE_S, proxied(api)),
        row("20 customers' first requests", api, firsts, PAUSE_S, helper(api)),
        row("20 lone questions", api, firsts, PAUSE_S, helper(api, continues=False)),
        row("a run, its tools in any order", api, disordered(run), PAUSE_S, helper(api)),
        row("a run, ten minutes between", api, run, 600.0, helper(api, **hour)),
        row("a plain chat, by the helper", api, dict(hard(api, model, calls))[CHAT], PAUSE_S, helper(api)),
        *(row(f"{name} (proxy)", api, sent, PAUSE_S, proxied(api)) for name, sent in hard(api, model, calls)),
    ]


def hard(api: Api, model: str, calls: list[Json]) -> Iterator[tuple[str, list[Json]]]:
    """Where marks may cost more than they save."""
    system = f"{INSTRUCTIONS}\n\nRuns that went well:\n{examples(calls)}"
    question, texts = "What does this say of the flight?", documents(calls)
    numbers = range(TURNS)

    def ask(text: str, *said: str) -> Json:
        return request_of(api, model, calls, alternating(*said), system=text, with_tools=False)

    def talk(start: int, count: int) -> list[str]:
        return [texts[at % len(texts)] for at in range(start, start + count)]

    clock = [f"{system}\nCurrent time: 2026-11-21T10:00:{number:02}" for number in numbers]
    yield (
        "a chat, its system prompt ends with the time",
        [ask(clock[n], *talk(0, 2 * n + 1)) for n in numbers],
    )
    yield (
        "20 customers, the system prompt ends with the name",
        [ask(f"{system}\nThe customer is {n} Smith.", question) for n in numbers],
    )
    yield CHAT, [ask(system, *talk(0, 2 * n + 1)) for n in numbers]
    yield "a chat, its latest 7 messages", [ask(INSTRUCTIONS, *talk(2 * n, 7)) for n in numbers]
    yield "one-shots", [ask(INSTRUCTIONS, f"{n} {texts[n]}") for n in numbers]
    yield "one-shots after two examples", [ask(INSTRUCTIONS, *talk(0, 4), f"{n} {texts[n]}") for n in numbers]
    yield "one-shots, a forced tool", [forced(api, ask(INSTRUCTIONS, f"{n} {texts[n]}")) for n in numbers]
    yield "a run that drops its beginning", [trimmed(api, sent) for sent in requests(api, model, calls)]


def alternating(*said: str) -> list[Json]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]


def documents(calls: list[Json]) -> list[str]:
    """Results of other runs, 8,000 characters each."""
    text = "\n".join(call["result"] for call in calls if call["session"] != SESSION and not call["error"])
    return [text[at : at + 8000] for at in range(0, 8000 * 2 * TURNS, 8000)]


def forced(api: Api, request: Json) -> Json:
    schema = {"type": "object", "properties": {"flight": {"type": "string"}}}
    choices: dict[Api, Json] = {
        "messages": {"type": "tool", "name": "extract"},
        "chat": {"type": "function", "function": {"name": "extract"}},
        "responses": {"type": "function", "name": "extract"},
    }
    return {**request, "tools": [tool(api, "extract", schema)], "tool_choice": choices[api]}


def trimmed(api: Api, request: Json) -> Json:
    """The question and the latest three calls with their results."""
    field = "input" if api == "responses" else "messages"
    head = 2 if api == "chat" else 1  # its system prompt is a message
    return {**request, field: [*request[field][:head], *request[field][head:][-6:]]}


def proxied(api: Api) -> Callable[[Json], Json]:
    return lambda request: dict(marked(request, api))


def helper(api: Api, **options: Any) -> Callable[[Json], Json]:
    if api == "messages":
        return lambda request: anthropic(request, **options)
    return lambda request: openai(request, api=api, **options)


def row(name: str, api: Api, sent: list[Json], pause_s: float, mark: Callable[[Json], Json]) -> Json:
    bare, helped = spent(api, sent, pause_s), spent(api, [mark(request) for request in sent], pause_s)
    return {
        "case": name,
        "api": api,
        "model": sent[0]["model"],
        "input_tokens": helped["tokens"],
        "unmarked_usd": round(bare["usd"], 6),
        "unmarked_read": round(bare["read"] / bare["tokens"], 4),
        "helped_usd": round(helped["usd"], 6),
        "helped_read": round(helped["read"] / helped["tokens"], 4),
        "saved": round(1 - helped["usd"] / bare["usd"], 4),
    }


def spent(api: Api, sent: Iterable[Json], pause_s: float) -> dict[str, float]:
    """On input alone: the answers are the same."""
    now = [0.0]
    provider = PromptCache(lambda: now[0])
    total: dict[str, float] = defaultdict(float)
    for request in sent:
        said = savings(provider.usage(api, request, 0), request["model"])
        total["usd"] += said.paid_usd
        total["read"] += said.read
        total["tokens"] += said.read + said.written + said.uncached
        now[0] += pause_s
    return total


def requests(api: Api, model: str, calls: list[Json]) -> list[Json]:
    """The run: each request begins with the one before."""
    run = [call for call in calls if call["session"] == SESSION]
    question = "Hello, I need help with my reservations, please."
    history: list[Json] = [{"role": "user", "content": question}]
    sent = []
    for number, call in enumerate(run[:TURNS]):
        sent.append(request_of(api, model, calls, history))
        history = [*history, *turn(api, f"call_{number:02}", call)]
    return sent


def disordered(run: list[Json]) -> list[Json]:
    """As tools come that are kept in a set."""
    dice = random.Random(7)  # noqa: S311 - repeatable on purpose
    return [{**request, "tools": dice.sample(request["tools"], len(request["tools"]))} for request in run]


def first(api: Api, model: str, calls: list[Json], number: int) -> Json:
    names = sorted({str(call["args"]["user_id"]) for call in calls if "user_id" in call["args"]})
    question = f"I am {names[number % len(names)]}. What is my next flight, and may I bring two bags?"
    return request_of(api, model, calls, [{"role": "user", "content": question}])


def request_of(
    api: Api,
    model: str,
    calls: list[Json],
    history: list[Json],
    *,
    system: str | None = None,
    with_tools: bool = True,
) -> Json:
    system = system or f"{INSTRUCTIONS}\n\nRuns that went well:\n{examples(calls)}"
    request: Json = {"model": model, **({"tools": tools(api, calls)} if with_tools else {})}
    if api == "messages":
        return {**request, "max_tokens": 1000, "system": system, "messages": history}
    if api == "responses":
        return {**request, "instructions": system, "input": history}
    return {**request, "messages": [{"role": "system", "content": system}, *history]}


def examples(calls: list[Json]) -> str:
    """Other runs' calls with their results."""
    others = (call for call in calls if call["session"] != SESSION and not call["error"])
    text = "\n".join(f"{call['tool']}({json.dumps(call['args'])}) → {call['result']}" for call in others)
    return text[:EXAMPLES_CHARACTERS]


def tools(api: Api, calls: list[Json]) -> list[Json]:
    """As the calls show them, in no order that repeats by design."""
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
    fields: dict[str, dict[str, Json]] = defaultdict(dict)
    for call in calls:
        for name, value in call["args"].items():
            fields[call["tool"]].setdefault(
                name, {"type": kinds[type(value)], "description": f"as {value!r}"[:200]}
            )
    return [tool(api, name, {"type": "object", "properties": shown}) for name, shown in fields.items()]


def tool(api: Api, name: str, schema: Json) -> Json:
    about = name.replace("_", " ")
    if api == "messages":
        return {"name": name, "description": about, "input_schema": schema}
    function = {"name": name, "description": about, "parameters": schema}
    return {"type": "function", "function": function} if api == "chat" else {"type": "function", **function}


def turn(api: Api, made: str, call: Json) -> list[Json]:
    """A call and its result."""
    name, arguments, result = call["tool"], json.dumps(call["args"]), call["result"]
    if api == "messages":
        used = {"type": "tool_use", "id": made, "name": name, "input": call["args"]}
        got = {"type": "tool_result", "tool_use_id": made, "content": result}
        return [{"role": "assistant", "content": [used]}, {"role": "user", "content": [got]}]
    if api == "chat":
        used = {"id": made, "type": "function", "function": {"name": name, "arguments": arguments}}
        got = {"role": "tool", "tool_call_id": made, "content": result}
        return [{"role": "assistant", "content": None, "tool_calls": [used]}, got]
    used = {"type": "function_call", "call_id": made, "name": name, "arguments": arguments}
    return [used, {"type": "function_call_output", "call_id": made, "output": result}]


def table(rows: list[Json]) -> None:
    print("| case | model | tokens | unmarked USD (read) | helped USD (read) | saved |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for one in rows:
        print(
            f"| {one['case']} | {one['model']} ({one['api']}) | {one['input_tokens']:,.0f} "
            f"| {one['unmarked_usd']:.4f} ({one['unmarked_read']:.0%}) "
            f"| {one['helped_usd']:.4f} ({one['helped_read']:.0%}) | {one['saved']:.0%} |"
        )


if __name__ == "__main__":
    main()
