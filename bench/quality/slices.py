"""Cuts the slices of public sets that are committed for the small run: python -m bench.quality.slices DATA"""

import sys
from pathlib import Path

from bench.quality.baseline import SLICES
from bench.quality.sets import Labelled, Training, labelled

SIZES = {"snips": 260, "hwu64": 260, "checklist_qqp": 320, "paws_wiki": 200}
"""Rows each, of sets that may be passed on with their notices; rows no training saw, where there are any."""


def main() -> None:
    data = Path(sys.argv[1])
    training = Training.of(data)
    SLICES.mkdir(exist_ok=True)
    for name, size in SIZES.items():
        found = labelled(data, name, training, size)
        if not isinstance(found, Labelled):
            sys.exit(found.why)
        lines = [[p.text_a, p.text_b, str(p.label), p.kind] for p in found.pairs]
        rows = ["\t".join(line) + "\n" for line in [["text_a", "text_b", "label", "kind"], *lines]]
        (SLICES / f"{name}.tsv").write_text("".join(rows), "utf-8")


if __name__ == "__main__":
    main()
