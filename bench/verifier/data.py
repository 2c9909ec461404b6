"""Builds what the verifier learns from: labelled pairs of tiers A and B, and pairs made of them by rule.

python -m bench.verifier.data ../shared/data /tmp/verifier --epochs 3
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from pathlib import Path

from bench.verifier import sets
from bench.verifier.sets import ELSEWHERE, Pair
from bench.verifier.traps import Rules, names
from bench.verifier.wordnet import WordNet

CAPS = {
    ("text2sql", 0): 6000, ("snips", 0): 3500, ("hwu64", 0): 3000, ("slurp", 0): 3000,
    ("cannot_negation", 0): 3000, ("situated_qa", 0): 2500, ("checklist_qqp", 0): 1200,
    ("checklist_qqp", 1): 1000, ("stsb", 0): 700, ("banking77", 0): 1800, ("clinc150", 0): 1800,
    ("parade", 0): 700, ("parade", 1): 700, ("disfl_qa", 1): 2000,
}  # fmt: skip
QUESTIONS = 7_000


def epoch(pairs: list[Pair], questions: list[str], rules: Rules, chance: random.Random) -> list[Pair]:
    """One epoch: a sample of the labelled pairs, and fresh rule-made ones."""
    groups: dict[tuple[str, int], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.set_name, pair.label].append(pair)
    chosen: list[Pair] = []
    for key, members in groups.items():
        chosen += chance.sample(members, min(len(members), CAPS.get(key, len(members))))
    chosen += sets.written(chance)
    made = [new for pair in chosen if pair.label == 1 for new in composed(pair, rules, chance)]
    made += [
        new for text in chance.sample(questions, QUESTIONS) for new in from_question(text, rules, chance)
    ]
    return chosen + made


def composed(pair: Pair, rules: Rules, chance: random.Random) -> list[Pair]:
    """From a rewording: the same with a trap in one side, and at times with one more harmless change."""
    found = []
    for a, b in ((pair.text_a, pair.text_b), (pair.text_b, pair.text_a)):
        if chance.random() < 0.4:
            trap = rules.trap(b)
            if trap is not None:
                found.append(pair._replace(kind=f"rule_{trap[1]}", text_a=a, text_b=trap[0], label=0))
    if chance.random() < 0.4:
        again = rules.reworded(pair.text_b, chance.choice([1, 1, 2]))
        if again is not None:
            found.append(pair._replace(kind="rule_same", text_b=again))
    return found


def from_question(text: str, rules: Rules, chance: random.Random) -> list[Pair]:
    """From one question: a rewording of one to four harmless changes, and traps of it or its rewording."""
    found = []
    again = rules.reworded(text, chance.choice([1, 2, 2, 3, 4]))
    if again is not None and chance.random() < 0.75:
        found.append(Pair("rules", "rule_same", text, text, again, 1))
    trap = rules.trap(text)
    if trap is not None:
        other = again if again is not None and chance.random() < 0.5 else text
        found.append(Pair("rules", f"rule_{trap[1]}", text, other, trap[0], 0))
        if chance.random() < 0.25:
            same = rules.reworded(trap[0], 2)
            if same is not None:
                found.append(Pair("rules", f"rule_{trap[1]}", text, text, same, 0))
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)  # noqa: S311 - sampling
    questions = sets.questions(given.data)
    rules = Rules(WordNet(), names(questions), given.seed)
    pairs = list(dict.fromkeys(sets.trainable(given.data, given.seed)))
    training = sets.free_of_validation(pairs)
    given.out.mkdir(parents=True, exist_ok=True)
    for number in range(given.epochs):
        made = epoch(training, questions, rules, chance)
        chance.shuffle(made)
        with (given.out / f"epoch{number}.jsonl").open("w") as file:
            file.writelines(json.dumps(pair) + "\n" for pair in made)
        print(number, len(made), Counter((pair.label, pair.kind.startswith("rule")) for pair in made))
    with (given.out / "validation.jsonl").open("w") as file:
        file.writelines(
            json.dumps(pair) + "\n" for pair in pairs if pair.held_back and pair.kind != ELSEWHERE
        )


if __name__ == "__main__":
    main()
