"""What guards and verifier say of two texts, computed once; the verifier's scores are kept on disk."""

import json
from pathlib import Path

from service.cache.guards import verdicts
from service.cache.policy import DEFAULT
from service.cache.question import same_words
from service.verifiers.crossencoder import CrossEncoder


class Readings:
    """Of one set's texts."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self._verifier = CrossEncoder()
        self.version, self.cut = self._verifier.version, self._verifier.cut
        self._file = folder / f"learning-{name}-{self.version}.json" if folder else None
        self._scores: dict[str, float | None] = {}
        if self._file is not None and self._file.exists():
            self._scores = json.loads(self._file.read_text("utf-8"))
        self._free: dict[str, bool] = {}

    def free(self, asked: str, cached: str) -> bool:
        """Whether no guard on wording speaks against it."""
        pair = "\n".join(sorted((asked, cached)))
        if pair not in self._free:
            self._free[pair] = all(verdicts(asked, cached, DEFAULT, every=False).values())
        return self._free[pair]

    def score(self, asked: str, cached: str) -> float | None:
        """The verifier's; 1 where the words are the same, as the lookup has it."""
        pair = "\n".join(sorted((asked, cached)))
        if pair not in self._scores:
            same = same_words(asked, cached)
            self._scores[pair] = 1.0 if same else self._verifier.run([(asked, cached)])[0]
        return self._scores[pair]

    def keep(self) -> None:
        """On disk."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._scores, ensure_ascii=False), "utf-8")
