"""WordNet's opposites for the guard: `python -m bench.verifier.opposites` writes the list that is shipped.

Pairs of single words, both of them used in WordNet's tagged texts, in their two most frequent meanings, the more
frequent word first; without those in LOOSE.
"""

from pathlib import Path

from bench.verifier.wordnet import FILES, WordNet

TARGET = Path(__file__).parents[2] / "service" / "cache" / "wording" / "opposites.tsv"
NOTICE = """\
# Opposites from WordNet 3.0, made by bench/verifier/opposites.py. NOTICE beside this file has the licence.
"""
LEAST = 2
"""How often a word stands in the tagged texts."""

LOOSE: frozenset[str] = frozenset()
"""Words whose opposites often say the same in questions: measured on the public sets."""


def pairs(net: WordNet) -> list[tuple[str, str]]:
    """(word, opposite), each once."""
    found = {}
    for lemma, pos in net.senses:
        for other in net.antonyms(lemma, pos):
            both = (lemma, other.lower())
            if all(word.isalpha() and len(word) > 1 and word not in LOOSE for word in both):
                counts = [net.counts.get((word, pos), 0) for word in both]
                if min(counts) >= LEAST:
                    found[frozenset(both)] = both if counts[0] >= counts[1] else both[::-1]
    return sorted(found.values())


if __name__ == "__main__":
    lines = [f"{word}\t{other}\n" for word, other in pairs(WordNet())]
    TARGET.write_text(NOTICE + "".join(lines), encoding="utf-8")
    print(f"{len(lines)} pairs → {TARGET.name}, from {', '.join(FILES.values())}")
