"""What `semcached calibrate` chooses, and how it counts."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from service.calibrate import (
    FOLDS,
    SERVED,
    Choice,
    Judged,
    Pair,
    Rate,
    _folds,
    choose,
    cross_fitted,
    read,
    refitted,
    report,
)
from service.cli import main
from service.errors import SettingsError
from service.model import Head


def judged(labels: list[int], scores: list[float], similarities: list[float] | None = None) -> Judged:
    count = len(labels)
    return Judged(
        labels=np.array(labels) == 1,
        similarities=np.array(similarities or [0.9] * count),
        passed=np.ones(count, bool),
        scores=np.array(scores),
        folds=np.arange(count) % FOLDS,
    )


def drawn(count: int, seed: int) -> Judged:
    """Scores that tell half of it, similarities that tell the rest."""
    chance = np.random.default_rng(seed)
    labels = chance.random(count) < 0.5
    logits = chance.normal(0, 1.5, count) + np.where(labels, 1.0, -1.0)
    similarities = np.clip(chance.normal(0.85, 0.05, count) + np.where(labels, 0.04, -0.04), 0.6, 0.99)
    return Judged(
        labels, similarities, np.ones(count, bool), 1 / (1 + np.exp(-logits)), np.arange(count) % FOLDS
    )


def test_the_least_strict_cut_that_keeps_the_error() -> None:
    pairs = judged([1, 1, 1, 0, 1, 0, 0, 0, 0, 0], [0.99, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    assert choose(pairs, 0.0).serves(pairs).tolist() == [True] * 3 + [False] * 7
    assert choose(pairs, 0.17).serves(pairs).tolist() == [True] * 5 + [False] * 5
    assert choose(pairs, 0.99).serves(pairs).sum() == 5  # all of label 1: no more is gained


def test_equal_scores_stand_and_fall_together() -> None:
    pairs = judged([1, 0, 0, 1], [0.9, 0.9, 0.9, 0.5])
    assert not choose(pairs, 0.5).serves(pairs).any()


def test_of_equal_choices_the_highest_threshold_which_reads_least() -> None:
    pairs = judged([1, 1, 0, 0], [0.9, 0.9, 0.1, 0.1], [0.93, 0.88, 0.8, 0.7])
    assert choose(pairs, 0.0).threshold == 0.875


def test_what_a_guard_rejects_is_never_served() -> None:
    pairs = judged([1, 0], [1.0, 1.0])._replace(passed=np.array([True, False]))
    assert choose(pairs, 0.0).serves(pairs).tolist() == [True, False]
    assert not Choice(0.5, 0.5).serves(pairs)[1]


def test_the_error_is_counted_on_pairs_it_was_not_chosen_on() -> None:
    """On average it is the wanted one. The interval is of the counting alone, and so a bit narrow."""
    covered, rates = 0, []
    for seed in range(40):
        outcome = cross_fitted(drawn(400, seed), 0.05)
        rates.append(outcome.errors.share)
        low, high = outcome.errors.interval
        covered += low <= 0.05 <= high
    assert 0.03 < np.mean(rates) < 0.07
    assert covered >= 30


def test_a_head_uses_what_the_score_leaves_out() -> None:
    pairs = drawn(2000, 1)
    head, seen = refitted(pairs, "v")
    assert head.similarity > 5
    assert cross_fitted(seen, 0.05).hits.share > cross_fitted(pairs, 0.05).hits.share + 0.04
    assert '"version": "v"' in report(pairs, 0.05, "v", refit=True).text


def test_a_head_that_errs_more_is_not_taken() -> None:
    """It would serve more of label 1, and more of label 0 than both the shipped one and the wanted error."""
    taken = []
    for seed in range(60):
        pairs = drawn(120, seed)
        own, shipped = cross_fitted(refitted(pairs, "v")[1], 0.02), cross_fitted(pairs, 0.02)
        text = report(pairs, 0.02, "v", refit=True).text
        if "it is taken" in text:
            taken.append(own.errors.share <= max(0.025, shipped.errors.share))
    assert all(taken)
    assert 5 < len(taken) < 60


def test_the_cut_is_written_as_it_was_chosen() -> None:
    pairs = judged([1, 1, 0, 0], [0.9, 0.88642, 0.88639412, 0.1])
    policy = msgspec.json.decode(report(pairs, 0.0, "v", refit=False).policy)
    choice = Choice(policy["threshold"], policy["verifier_cut"])
    assert choice.serves(pairs).tolist() == [True, True, False, False]
    assert policy["verifier_version"] == "v"


def test_what_is_served_unread_is_counted() -> None:
    """Nothing but the threshold keeps it out, and where that can't, the report says so."""
    pairs = judged([1, 1, 1, 0], [SERVED, 0.9, 0.2, SERVED], [0.99, 0.99, 0.99, 0.99])
    choice = choose(pairs, 0.0)
    assert choice.serves(pairs).tolist()[3]
    assert choice.cut <= 1


def test_without_evidence_the_cut_is_no_laxer_than_label_1_needs() -> None:
    pairs = judged([1] * 5 + [0] * 5, [0.97, 0.96, 0.95, 0.94, 0.93] + [0.01] * 5)
    assert choose(pairs, 0.5).cut == 0.93


def test_what_the_pairs_do_not_show_is_said() -> None:
    few = report(judged([1] * 9 + [0] * 9, [0.9] * 9 + [0.1] * 9), 0.02, "v", refit=False).text
    assert "not shown: that the error is at most 2.0%, it may be" in few
    assert "too few pairs of label 0" in few
    many = report(judged([1] * 9 + [0] * 300, [0.9] * 9 + [0.1] * 300), 0.02, "v", refit=False).text
    assert "not shown" not in many


def test_few_pairs_change_the_head_little() -> None:
    head, _ = refitted(judged([1, 0], [0.6, 0.4]), "v")
    assert abs(head.bias) < 0.1
    assert abs(head.logit - 1) < 0.2
    assert Head(version="v", bias=0, logit=1, similarity=0).score(0.3, 0.9) == pytest.approx(0.3)


def test_pairs_that_share_a_text_are_in_one_fold() -> None:
    chain = [Pair(f"t{n}", f"t{n + 1}", 1) for n in range(10)]
    others = [Pair(f"a{n}", f"b{n}", 0) for n in range(10)]
    folds = _folds([*chain, *others])
    assert len(set(folds[:10])) == 1
    assert len(set(folds[10:])) == FOLDS


def test_wilsons_interval() -> None:
    assert Rate(0, 10).interval == pytest.approx((0, 0.2775), abs=1e-4)
    assert Rate(5, 10).interval == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert Rate(0, 0).interval == (0, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text_a\tlabel\na\t1\n", "names no column text_b"),
        ("text_a\ttext_b\tlabel\na\tb\t1\na\tb\tyes\n", "line 3: label: must be 0 or 1, is 'yes'"),
        ("text_a\ttext_b\tlabel\na\t \t1\n", "line 2: text_b: is blank"),
        ("text_a\ttext_b\tlabel\na\n", "line 2: label"),
        ("\xff", "names no column"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, policy = tmp_path / "pairs.tsv", tmp_path / "policy.json"
    assert main(["calibrate", str(pairs)]) == 2
    pairs.write_text(
        "text_a\ttext_b\tlabel\tkind\n"
        "How do I reset my password?\tHow can I reset my password?\t1\tx\n"
        "What is the capital of France?\tTell me the capital of France\t1\tx\n"
        "How do I enable 2FA?\tHow do I disable 2FA?\t0\tx\n"
        "Flights from Rome to Paris\tFlights from Paris to Rome\t0\tx\n"
    )
    assert main(["calibrate", str(pairs), "--output", str(policy)]) == 0
    printed = capsys.readouterr().out
    assert "4 pairs, 2 of label 1; wanted error 2.0%" in printed
    assert policy.read_text() in printed + "\n"
    pairs.write_text("text_a\ttext_b\tlabel\na\tb\t1\n")
    assert main(["calibrate", str(pairs)]) == 2
    assert "label 0" in capsys.readouterr().err
