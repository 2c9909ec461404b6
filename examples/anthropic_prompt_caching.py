"""What `semcached.prompts` saves of 20 turns on a long text, on Anthropic's SDK, with marks and without.

    .venv/bin/python -m examples.anthropic_prompt_caching

No service takes part. The provider is the stub: it bills by Anthropic's caching rules as documented
(tests/provider/rules.py), a token being four characters. A real agent's run, more models: bench/prompts.py.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anthropic import Anthropic

from semcached.prompts import Savings, anthropic, explain, savings
from tests.provider.server import Provider, threaded

MODEL = "claude-opus-5-5"
CONTRACT = (Path(__file__).parents[1] / "LICENSE").read_text("utf-8")  # a long text that stays as it is
LINES = [line.strip() for line in CONTRACT.splitlines() if len(line) > 60]  # noqa: PLR2004 - not headings
QUESTIONS = [f"What does this mean for me: {line}" for line in LINES[:20]]
Request = dict[str, Any]


def conversation(client: Anthropic, mark: Callable[[Request], Request]) -> list[Savings]:
    """What each turn cost, input and output."""
    messages: list[Request] = []
    costs = []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        request = {"model": MODEL, "max_tokens": 500, "system": CONTRACT, "messages": messages}
        answer = client.messages.create(**mark(request))
        messages.append({"role": "assistant", "content": answer.content})
        costs.append(savings(answer.usage, MODEL))
    return costs


def unmarked(request: Request) -> Request:
    return request


def total(costs: list[Savings]) -> dict[str, float]:
    return {
        "turns": len(costs),
        "uncached": sum(one.uncached for one in costs),
        "written": sum(one.written for one in costs),
        "read": sum(one.read for one in costs),
        "usd": sum(one.paid_usd for one in costs),
    }


def table(totals: dict[str, dict[str, float]]) -> str:
    lines = [
        f"| {name} | {one['uncached']:,} | {one['written']:,} | {one['read']:,} | {one['usd']:.4f} |"
        for name, one in totals.items()
    ]
    head = ["| 20 turns | tokens uncached | written | read | USD |", "| --- | ---: | ---: | ---: | ---: |"]
    return "\n".join([*head, *lines])


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m examples.anthropic_prompt_caching", description=__doc__
    )
    arguments.add_argument("--json", action="store_true", help="the totals as data")
    given = arguments.parse_args()
    totals = {}
    with threaded(Provider()) as provider:
        for name, mark in {"unmarked": unmarked, "marked": anthropic}.items():
            with Anthropic(base_url=provider.root, api_key=f"sk-{name}") as client:  # an account each
                totals[name] = total(conversation(client, mark))
    if given.json:
        print(json.dumps(totals))
        return
    question = {"role": "user", "content": QUESTIONS[0]}
    print(explain(anthropic({"model": MODEL, "max_tokens": 500, "system": CONTRACT, "messages": [question]})))
    print(f"\n{table(totals)}")


if __name__ == "__main__":
    main()
