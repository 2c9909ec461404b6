"""WordNet 3.0 from its own files (Debian: `wordnet-base`, Princeton's licence)."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path("/usr/share/wordnet")
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}


@dataclass(slots=True)
class Synset:
    """Words of one meaning and what it points at."""

    lex: int
    words: list[str]
    up: list[str] = field(default_factory=list)
    down: list[str] = field(default_factory=list)
    antonyms: list[tuple[int, str, int]] = field(default_factory=list)  # own word, synset, its word


class WordNet:
    """Look-ups by lemma and part of speech (n, v, a, r)."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.synsets: dict[str, Synset] = {}
        self.senses: dict[tuple[str, str], list[str]] = {}
        self.counts: dict[tuple[str, str], int] = defaultdict(int)
        for pos, name in FILES.items():
            self._read_data(folder / f"data.{name}", pos)
            self._read_index(folder / f"index.{name}", pos)
        kinds = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
        for line in (folder / "cntlist.rev").read_text().splitlines():
            key, _, count = line.split()
            lemma, rest = key.split("%")
            self.counts[lemma, kinds[rest[0]]] += int(count)

    def _read_data(self, path: Path, pos: str) -> None:
        for line in path.read_text("latin-1").splitlines():
            if line.startswith("  "):
                continue
            parts = line.split(" | ")[0].split()
            count = int(parts[3], 16)
            words = [word.split("(")[0] for word in parts[4 : 4 + 2 * count : 2]]
            synset = Synset(int(parts[1]), words)
            at = 4 + 2 * count
            for pointer in range(int(parts[at])):
                symbol, offset, kind, ends = parts[at + 1 + 4 * pointer : at + 5 + 4 * pointer]
                target = kind.replace("s", "a") + offset
                if symbol in {"@", "@i"}:
                    synset.up.append(target)
                elif symbol in {"~", "~i"}:
                    synset.down.append(target)
                elif symbol == "!":
                    synset.antonyms.append((int(ends[:2], 16) - 1, target, int(ends[-2:], 16) - 1))
            self.synsets[pos + parts[0]] = synset

    def _read_index(self, path: Path, pos: str) -> None:
        for line in path.read_text("latin-1").splitlines():
            if line.startswith("  "):
                continue
            parts = line.split()
            count = int(parts[2])
            self.senses[parts[0], pos] = [pos + offset for offset in parts[-count:]]

    def pos(self, lemma: str) -> str | None:
        """The part of speech that a word nearly always is."""
        counts = {pos: self.counts.get((lemma, pos), 0) + 0.1 for pos in FILES if (lemma, pos) in self.senses}
        if not counts:
            return None
        best = max(counts, key=lambda pos: counts[pos])
        return best if counts[best] >= 0.75 * sum(counts.values()) else None

    def antonyms(self, lemma: str, pos: str) -> list[str]:
        """Opposites in the two most frequent meanings."""
        found = []
        for key in self.senses.get((lemma, pos), [])[:2]:
            synset = self.synsets[key]
            for own, target, other in synset.antonyms:
                if synset.words[own].lower() == lemma:
                    found.append(self.synsets[target].words[other])
        return [word.replace("_", " ") for word in found]

    def sisters(self, lemma: str, pos: str) -> list[str]:
        """Other kinds of what the word is a kind of, in its first meaning; never a synonym."""
        senses = self.senses.get((lemma, pos))
        if not senses:
            return []
        first = self.synsets[senses[0]]
        same = {word.lower() for key in senses for word in self.synsets[key].words}
        found = []
        for up in first.up[:2]:
            for key in self.synsets[up].down:
                if key != senses[0]:
                    words = self.synsets[key].words[:1]
                    found += [word for word in words if word.lower() not in same]
        instance = first.words[0][0].isupper()
        common = [word for word in found if instance or self.counts.get((word.lower(), pos), 0) > 0]
        return [word.replace("_", " ") for word in common]

    def synonyms(self, lemma: str, pos: str) -> list[str]:
        """Words whose first meaning is this word's first meaning."""
        senses = self.senses.get((lemma, pos))
        if not senses:
            return []
        words = [word.lower() for word in self.synsets[senses[0]].words]
        return [
            word.replace("_", " ")
            for word in words
            if word != lemma
            and self.senses.get((word, pos), [""])[0] == senses[0]
            and self.counts.get((word, pos), 0) > 0
        ]
