"""The local model, and the joining of concurrent texts."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.embedders.batching import BATCH, BULK, PADDING_CHARS, RUN_CHARS, BatchingEmbedder, batching
from service.embedders.local import DIM, WINDOW, MiniLM
from service.errors import EmbedderError

pytestmark = pytest.mark.anyio


class Gated:
    """A model that runs when the test lets it."""

    model, revision, dim = "gated", "1", 4

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.runs: list[list[str]] = []

    def unfit(self, text: str) -> str | None:
        del text
        return None

    def tokens(self, texts: Sequence[str]) -> int:
        return sum(map(len, texts))

    def run(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.gate.wait(10)
        self.runs.append(list(texts))
        if "boom" in texts:
            raise ValueError("boom")
        rows = np.zeros((len(texts), self.dim), np.float32)
        rows[np.arange(len(texts)), [len(text) % self.dim for text in texts]] = 1
        if "nan" in texts:
            rows[:] = np.nan
        return rows


@pytest.fixture(scope="module")
def model(minilm: MiniLM) -> MiniLM:
    return minilm


def test_known_similarities(model: MiniLM) -> None:
    """Figures of the published model: two wordings, a trap, and something else."""
    reset, reword, other = model.run(
        ["How do I reset my password?", "How can I reset my password?", "What is the refund policy?"]
    )
    assert reset @ reword == pytest.approx(0.991, abs=0.005)
    assert reset @ other == pytest.approx(0.154, abs=0.02)
    enable, disable = model.run(["How do I enable 2FA?", "How do I disable 2FA?"])
    assert enable @ disable == pytest.approx(0.895, abs=0.005)


def test_a_vector_does_not_depend_on_its_batch(model: MiniLM) -> None:
    texts = ["one", "a somewhat longer question about parcels and where they are", "3"]
    together = model.run(texts)
    alone = np.vstack([model.run([text]) for text in texts])
    assert together.shape == (3, DIM)
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6


def test_nothing_is_cut_silently(model: MiniLM) -> None:
    fits, too_long = " ".join(["word"] * (WINDOW - 2)), " ".join(["word"] * (WINDOW - 1))
    assert model.unfit(fits) is None
    assert model.unfit(too_long) == "too_long"
    assert model.unfit("x" * 10**6) == "too_long"
    # Beyond 128 tokens, where the model's shipped tokenizer would cut: the end still counts.
    a, b = model.run([" ".join(["word"] * 140) + " yes", " ".join(["word"] * 140) + " no"])
    assert a @ b < 0.9999
    with pytest.raises(EmbedderError):
        model.run([too_long])


@pytest.mark.parametrize(
    "text", ["Is a ≠ b?", "x ∉ M", "バリ", "мой дом", "\u05e9\u05b8", "a\ue000b", "a\ufffd", "\u0301a"]
)
def test_a_text_that_loses_marks_is_not_embedded(model: MiniLM, text: str) -> None:
    """To the model "≠" is "=", and Bali, in Japanese, is Paris."""
    assert model.unfit(text) == "unknown_characters"


@pytest.mark.parametrize("text", ["Où est la gare ?", "Straße in Łódź", "¿Qué año?", "costs 5 € …"])
def test_accents_of_latin_letters_pass(model: MiniLM, text: str) -> None:
    assert model.unfit(text) is None


@pytest.mark.parametrize("text", ["order \U0001f34e", "\U0001f34c", "x" * 200, "\u200b", "\x00"])
def test_what_the_model_cannot_read_is_not_embedded(model: MiniLM, text: str) -> None:
    assert model.unfit(text) == "unknown_characters"


def test_special_tokens_in_a_text_are_text(model: MiniLM) -> None:
    assert model.unfit("what does [UNK] or [SEP] mean?") is None
    a, b = model.run(["[SEP]", "[MASK]"])
    assert a @ b < 0.9


async def test_concurrent_texts_share_runs_and_equal_ones_run_once() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    first = asyncio.create_task(embedder.embed(["first"]))
    await asyncio.sleep(0.05)
    rest = [asyncio.create_task(embedder.embed([f"text {n % 10}", "first"])) for n in range(40)]
    await asyncio.sleep(0.05)
    gated.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert [len(run) for run in gated.runs] == [1, 10]
    assert all((answer[1] == answers[0][0]).all() for answer in answers[1:])
    await embedder.close()


async def test_runs_are_bounded() -> None:
    gated = Gated()
    gated.gate.set()
    embedder = BatchingEmbedder(gated)
    texts = [str(n) for n in range(100)]
    rows = await embedder.embed(texts)
    assert rows.shape == (100, 4)
    assert max(len(run) for run in gated.runs) <= BATCH
    assert sorted(text for run in gated.runs for text in run) == sorted(texts)
    assert (await embedder.embed([])).shape == (0, 4)
    await embedder.close()


async def test_long_texts_run_with_few_others_and_short_ones_with_their_like() -> None:
    gated = Gated()
    gated.gate.set()
    embedder = BatchingEmbedder(gated)
    texts = [*(f"short {n}" for n in range(20)), *(f"{n} " + "long " * 200 for n in range(6))]
    await embedder.embed(texts)
    assert sorted(text for run in gated.runs for text in run) == sorted(texts)
    assert all(len(run) == 1 or len(run) * max(map(len, run)) <= RUN_CHARS for run in gated.runs)
    assert len(gated.runs) < 10
    await embedder.close()


async def test_a_run_has_little_padding_and_no_text_waits_for_ever() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    first = asyncio.create_task(embedder.embed(["first"]))
    await asyncio.sleep(0.05)
    texts = [f"{n:03}" + "x" * (n % 13) ** 2 for n in range(200)]
    rest = [asyncio.create_task(embedder.embed([text])) for text in texts]
    await asyncio.sleep(0.05)
    gated.gate.set()
    await asyncio.gather(first, *rest)
    assert sorted(text for run in gated.runs for text in run) == sorted(["first", *texts])
    padding = [max(map(len, run)) * len(run) - sum(map(len, run)) for run in gated.runs]
    assert max(padding) <= PADDING_CHARS
    assert len(gated.runs) < 30
    await embedder.close()


async def test_a_call_with_few_texts_overtakes_one_with_many_and_both_end() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    many = asyncio.create_task(embedder.embed([f"{n} " + "long " * 300 for n in range(20)]))
    await asyncio.sleep(0.05)
    few = asyncio.create_task(embedder.embed(["a short one"]))
    await asyncio.sleep(0.05)
    gated.gate.set()
    await asyncio.gather(many, few)
    assert "a short one" in {text for run in gated.runs[:3] for text in run}
    await embedder.close()


async def test_too_many_waiting_texts_are_turned_away() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    waiting = [asyncio.create_task(embedder.embed([f"{n} {m}" for m in range(1024)])) for n in range(4)]
    await asyncio.sleep(0.05)
    with pytest.raises(EmbedderError, match="busy"):
        await embedder.embed([str(n) for n in range(1024)])
    gated.gate.set()
    assert len(await asyncio.gather(*waiting)) == 4
    await embedder.close()


async def test_nobody_runs_what_nobody_waits_for() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    running = asyncio.create_task(embedder.embed(["running"]))
    await asyncio.sleep(0.05)
    leaving = [asyncio.create_task(embedder.embed([f"left {n}", "shared"])) for n in range(50)]
    staying = asyncio.create_task(embedder.embed(["shared"]))
    await asyncio.sleep(0.05)
    for task in leaving:
        task.cancel()
    await asyncio.sleep(0.05)
    gated.gate.set()
    await asyncio.gather(running, staying)
    assert gated.runs == [["running"], ["shared"]]
    await embedder.close()


async def test_closing_turns_away_who_still_waits() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    running = asyncio.create_task(embedder.embed(["running"]))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(embedder.embed(["waiting"]))
    await asyncio.sleep(0.05)
    gated.gate.set()
    await embedder.close()
    assert (await running).shape == (1, 4)
    with pytest.raises(EmbedderError, match="ending"):
        await waiting


async def test_a_model_that_hangs_fails_the_call() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated, patience_s=-0.1)
    with pytest.raises(EmbedderError, match="hangs"):
        await embedder.embed(["a"])
    gated.gate.set()
    await embedder.close()


async def test_a_cancelled_caller_harms_nobody() -> None:
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    leaving = asyncio.create_task(embedder.embed(["shared", "only mine"]))
    staying = asyncio.create_task(embedder.embed(["shared"]))
    await asyncio.sleep(0.05)
    leaving.cancel()
    gated.gate.set()
    assert (await staying).shape == (1, 4)
    assert (await embedder.embed(["later"])).shape == (1, 4)
    await embedder.close()


@pytest.mark.parametrize("text", ["boom", "nan"])
async def test_a_failed_run_fails_those_who_waited_and_nobody_after(text: str) -> None:
    gated = Gated()
    gated.gate.set()
    embedder = BatchingEmbedder(gated)
    with pytest.raises(EmbedderError):
        await embedder.embed([text])
    assert (await embedder.embed(["fine"])).shape == (1, 4)
    await embedder.close()


async def test_warm_before_use(model: MiniLM) -> None:
    async with batching(model) as embedder:
        assert (await embedder.embed(["hello"])).shape == (1, DIM)
        assert embedder.unfit("hello") is None


def test_the_model_reports_to_nobody(tmp_path: Path) -> None:
    """What onnxruntime would send goes through a database in the home folder."""
    source = "from service.embedders.local import MiniLM; MiniLM().run(['hello'])"
    clean = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", source], env=clean, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


async def test_a_call_in_bulk_leaves_room_for_others() -> None:
    """Its texts wait a part at a time, and come back in their order."""
    gated = Gated()
    embedder = BatchingEmbedder(gated)
    texts = ["x" * (1 + n * 7 % 600) + f"{n}" for n in range(3 * BULK)]
    task = asyncio.create_task(embedder.raw(texts, bulk=True))
    await asyncio.sleep(0.01)
    assert len(embedder._waiting) + len(embedder._running) == BULK
    gated.gate.set()
    answer = await task
    assert answer.rows.argmax(axis=1).tolist() == [len(text) % gated.dim for text in texts]
    assert answer.tokens == sum(map(len, texts))
    assert sorted(text for run in gated.runs for text in run) == sorted(texts)
    await embedder.close()
