"""The verifier: how a pair is shown to it, what it says, and how it is run."""

import time
from collections.abc import Sequence

import anyio
import pytest

from service.embedders.local import tokenizer
from service.errors import VerifierError
from service.verifiers.crossencoder import CrossEncoder
from service.verifiers.pairs import ALONE, MARK, RUN, STEM, WORD, encode, plain, side
from service.verifiers.threaded import MAX_WAITING, SLICE, Pair, ThreadedVerifier
from service.wiring import Loaded

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def model(models: Loaded) -> CrossEncoder:
    assert isinstance(models.verifier, CrossEncoder)
    return models.verifier


def test_each_piece_is_marked_by_how_the_other_text_has_its_word() -> None:
    pieces = tokenizer()
    a, b = side(pieces, "two flats in Málaga"), side(pieces, "in malaga a flat for 2")
    name = len(a.ids) - 3  # how many pieces Málaga has
    row = encode(a, b)
    of_a = [WORD, STEM, WORD, *([RUN] * name)]
    of_b = [WORD, *([RUN] * name), ALONE, STEM, ALONE, WORD]
    assert row.flags == [MARK, *of_a, MARK, *of_b, MARK]
    assert row.sides == [0] * (len(a.ids) + 2) + [1] * (len(b.ids) + 1)


def test_words_are_compared_without_case_marks_and_spelling_of_numbers() -> None:
    assert [plain(word) for word in ("Años", "US", "Twelve", "12")] == ["anos", "us", "12", "12"]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How do I reset my password?", "How can I reset my password?"),
        ("What is the capital of France?", "tell me the capital of france"),
        ("Who wrote Hamlet?", "Who is the author of Hamlet?"),
        ("What is the price of the premium plan?", "how much does the premium plan cost"),
    ],
)
def test_rewordings_pass(model: CrossEncoder, a: str, b: str) -> None:
    (score,) = model.run([(a, b)])
    assert score is not None
    assert score >= model.cut


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("How do I enable 2FA?", "How do I disable 2FA?"),
        ("What is the capital of France?", "What is the capital of Italy?"),
        ("Flights from Rome to Paris", "Flights from Paris to Rome"),
        ("Weather in Berlin today", "Weather in Berlin tomorrow"),
        ("Can I return an item after 30 days?", "Can I return an item after 90 days?"),
        ("Show me all orders", "Show me all orders that are unpaid"),
        ("When does the store open?", "Where is the store?"),
    ],
)
def test_traps_do_not(model: CrossEncoder, a: str, b: str) -> None:
    (score,) = model.run([(a, b)])
    assert score is not None
    assert score < model.cut


def test_a_score_depends_on_the_pair_alone(model: CrossEncoder) -> None:
    pairs = [("How do I reset my password?", "reset password"), ("a", "b"), ("x " * 40, "y"), ("", "")]
    alone = [model.run([pair])[0] for pair in pairs]
    swapped = [model.run([(b, a)])[0] for a, b in pairs]
    assert model.run(pairs) == pytest.approx(alone, abs=1e-5)
    assert swapped == pytest.approx(alone, abs=1e-5)


def test_what_is_too_long_is_not_scored(model: CrossEncoder) -> None:
    assert model.run([("word " * 200, "word"), ("word", "word")])[0] is None
    assert model.run([("word " * 200, "word"), ("word", "word")])[1] is not None


class Slow:
    version, cut = "v", 0.5

    def __init__(self, seconds: float = 0.0, *, fails: bool = False) -> None:
        self.seconds, self.fails, self.runs = seconds, fails, list[int]()

    def run(self, pairs: Sequence[Pair]) -> list[float | None]:
        self.runs.append(len(pairs))
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("broken")
        return [len(a) / 100 for a, _ in pairs]


async def test_order_is_kept_and_a_batch_takes_turns() -> None:
    model = Slow(0.01)
    verifier = ThreadedVerifier(model)
    single: list[float | None] = []

    async def one() -> None:
        await anyio.sleep(0.015)
        single.extend(await verifier.scores([("xx", "y")]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        scores = await verifier.scores([("x" * n, "y") for n in range(3 * SLICE)])
    assert scores == [n / 100 for n in range(3 * SLICE)]
    assert single == [0.02]
    assert model.runs.index(1) < len(model.runs) - 1  # not behind the whole batch
    verifier.close()


@pytest.mark.parametrize(("model", "says"), [(Slow(fails=True), "broken"), (Slow(0.3), "busy or hangs")])
async def test_a_verifier_that_fails_or_hangs(model: Slow, says: str) -> None:
    verifier = ThreadedVerifier(model, patience_s=-0.05)
    with pytest.raises(VerifierError, match=says):
        await verifier.scores([("a", "b")])
    verifier.close()


async def test_a_crowd_is_turned_away_at_once() -> None:
    verifier = ThreadedVerifier(Slow())
    with pytest.raises(VerifierError, match="busy"):
        await verifier.scores([("a", "b")] * (MAX_WAITING + 1))
    assert await verifier.scores([("a", "b")]) == [0.01]
    verifier.close()
