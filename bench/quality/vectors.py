"""Texts to vectors, in batches, kept on disk: all deciders see the same ones."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bench.verifier.sets import Pair
from service.embedders.batching import Model
from service.embedders.local import WINDOW, MiniLM

BATCH, BATCH_CHARS = 32, 4096
Floats = NDArray[np.float32]


class Vectors(NamedTuple):
    """Rows of norm 1; NaN where the model would refuse the text, so that nothing is near it."""

    at: dict[str, int]
    rows: Floats

    def similarities(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Cosine of each pair, as the service has it."""
        a = self.rows[[self.at[pair.text_a] for pair in pairs]]
        b = self.rows[[self.at[pair.text_b] for pair in pairs]]
        found: NDArray[np.float64] = np.einsum("nd,nd->n", a, b).astype(np.float64)
        return found

    def nearest(self, asked: Sequence[str], cached: Sequence[str]) -> list[int]:
        """For each text the place of its nearest in `cached`."""
        rows = np.nan_to_num(self.rows, nan=0.0)
        entries = rows[[self.at[text] for text in cached]].T
        return [int(np.argmax(rows[self.at[text]] @ entries)) for text in asked]


def embedded(model: Model, texts: Iterable[str], cache: Path | None) -> Vectors:
    """Vectors of all texts; those of the same texts by the same model are read from `cache`."""
    wanted = sorted(set(texts), key=lambda text: (len(text), text))
    at = {text: place for place, text in enumerate(wanted)}
    name = hashlib.sha256("\0".join([model.revision, *wanted]).encode()).hexdigest()[:24]
    file = cache / f"vectors-{name}.npy" if cache else None
    if file is not None and file.exists():
        return Vectors(at, np.load(file))
    rows = np.full((len(wanted), model.dim), np.nan, np.float32)
    fit = [text for text in wanted if model.unfit(text) is None]
    for page in tqdm(list(pages(fit)), desc="vectors", unit="batch", disable=None, leave=False):
        rows[[at[text] for text in page]] = model.run(page)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, rows)
    return Vectors(at, rows)


def pages(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts of like length together, so that little is padded; they come sorted by length."""
    page: list[str] = []
    for text in texts:
        if page and (len(page) == BATCH or (len(page) + 1) * len(text) > BATCH_CHARS):
            yield page
            page = []
        page.append(text)
    if page:
        yield page


class OnnxFolder:
    """A sentence embedding model from a folder: model.onnx, tokenizer.json; mean of tokens, or the first."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime  # noqa: PLC0415 - as service.embedders.local
        from tokenizers import Tokenizer  # noqa: PLC0415 - when it is needed

        weights = (folder / "model.onnx").read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self._inputs = {one.name for one in self._session.get_inputs()}
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(WINDOW)
        self._tokenizer.enable_padding()
        pooling = folder / "1_Pooling" / "config.json"
        self._first = pooling.exists() and '"pooling_mode_cls_token": true' in pooling.read_text("utf-8")
        self.model, self.revision = folder.name, hashlib.sha256(weights).hexdigest()[:16]
        self.dim = self.run(["one"]).shape[1]

    def unfit(self, text: str) -> str | None:
        """Long texts are cut, as the peers do."""
        return None if text.strip() else "empty"

    def tokens(self, texts: Sequence[str]) -> int:
        """How many the model reads, without padding."""
        return sum(sum(one.attention_mask) for one in self._tokenizer.encode_batch(list(texts)))

    def run(self, texts: Sequence[str]) -> Floats:
        """[n, dim], rows of norm 1."""
        found = self._tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in found], np.int64)
        mask = np.array([one.attention_mask for one in found], np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden: Any = self._session.run(None, {name: feed[name] for name in self._inputs})[0]
        pooled = hidden[:, 0] if self._first else np.einsum("nld,nl->nd", hidden, mask.astype(np.float32))
        normed: Floats = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return normed.astype(np.float32)


def loaded(folder: Path | None, threads: int) -> Model:
    """The shipped embedder, or another from a folder."""
    return MiniLM(threads) if folder is None else OnnxFolder(folder, threads)
