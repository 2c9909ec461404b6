"""Writes the pairs that the shipped defaults are calibrated on: python -m bench.quality.calibration OUT.tsv.

Of each set as many pairs of each label, from rows that no training saw; sets without such rows are left out.
Then: semcached calibrate OUT.tsv.
"""

import argparse
from pathlib import Path

from bench.quality.sets import Absent, Training, labelled, sample
from bench.verifier.sets import Pair

SETS = (
    *("text2sql", "snips", "hwu64", "checklist_qqp", "paws_wiki", "cannot_negation", "medical_qp"),
    *("banking77", "clinc150"),
)
EACH = 150


def chosen(data: Path) -> list[Pair]:
    """The pairs of all sets that are here."""
    training, found = Training.of(data), list[Pair]()
    for name in SETS:
        one = labelled(data, name, training, None)
        if isinstance(one, Absent) or one.trained:
            print(
                f"left out {name}: {one.why if isinstance(one, Absent) else 'all its rows were trained on'}"
            )
            continue
        for label in (0, 1):
            part = sample([pair for pair in one.pairs if pair.label == label], EACH)
            print(f"{name} label {label}: {len(part)}")
            found += part
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the public sets")
    given = parser.parse_args()
    rows = [f"{pair.text_a}\t{pair.text_b}\t{pair.label}\n" for pair in chosen(given.data)]
    given.out.write_text("text_a\ttext_b\tlabel\n" + "".join(rows), "utf-8")


if __name__ == "__main__":
    main()
