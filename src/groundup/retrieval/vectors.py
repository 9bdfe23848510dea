"""Dense vectors of passages: mean hidden states of a language model, for searches that words alone do not find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.checksums import digests_of
from groundup.core.errors import FormatError, GroundupError
from groundup.core.types import text_id

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from groundup.inference import Completion, Engine

VECTORS = "vectors.npy"
MEAN = "vectors_mean.npy"
_MAX_TOKENS = 256  # longer texts are shortened
_BATCH = 64  # number of texts whose vectors are computed together
_RANK_CONSTANT = 60  # Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet"
_DENSE_WEIGHT = 0.25  # weight of the rank by vectors; the rank by words has the weight 1
_OPEN_ENCODERS = 2  # an index that is updated keeps the model in memory


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """The model that computed the vectors of an index.

    Attributes:
        path: Absolute path of the model directory or GGUF file.
        weights: Digest of weights and config.
        tokenizer: Digest of the tokenizer, or "" if it is in the model file.
    """

    path: str
    weights: str
    tokenizer: str

    @classmethod
    def of(cls, path: Path) -> EncoderRecord:
        """Return the record of a model directory, a GGUF file or a run.

        Raises:
            DataError: The model does not exist.
        """
        from groundup.hub.adapted import content_digest
        from groundup.hub.resolve import resolve_model
        from groundup.tokenizer import TOKENIZER_FILE

        directory = resolve_model(path)
        tokenizer = directory / TOKENIZER_FILE
        digest = digests_of([tokenizer])[tokenizer] if tokenizer.is_file() else ""
        return cls(str(directory.resolve()), content_digest(directory).hex(), digest)

    @property
    def digest(self) -> str:
        """Digest of the model, which does not depend on its path."""
        return self.weights + self.tokenizer

    def require_unchanged(self, index: Path) -> None:
        """Check that the model still is the model that computed the vectors.

        Args:
            index: Directory of the index, for messages.

        Raises:
            FormatError: The model does not exist, or its weights or its tokenizer changed.
        """
        fix = f"Run: groundup index FOLDER --out {index} --vectors MODEL, or without --vectors."
        try:
            now = EncoderRecord.of(Path(self.path))
        except GroundupError as error:
            raise FormatError(f"{index}: the model of its vectors, {self.path}, cannot be read", fix=fix) from error
        for what in ("weights", "tokenizer"):
            if getattr(now, what) != getattr(self, what):
                rule = "vectors of different models cannot be compared"
                raise FormatError(f"{index}: the {what} of {self.path} changed", rule=rule, fix=fix)


class Encoder:
    """A language model that computes vectors of texts.

    Args:
        record: The model.
    """

    def __init__(self, record: EncoderRecord) -> None:
        from groundup.hub.loading import open_model
        from groundup.inference import Engine

        opened = open_model(Path(record.path), as_stored=True)
        self._engine: Engine = Engine.of(opened)
        self._tokenizer = opened.tokenizer
        self._max_tokens = min(_MAX_TOKENS, opened.model.config.context_length)

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return self._engine.model.config.dim

    def encode(self, texts: Sequence[str], advance: Callable[[float], object] = lambda _: None) -> npt.NDArray[Any]:
        """Return the vectors of texts, of shape (number of texts, dim) and norm 1. No other thread may encode now.

        Args:
            texts: The texts.
            advance: Called with the number of texts that were encoded since the last call.
        """
        import numpy as np

        done = self._engine.complete_all([self._request(text) for text in texts], advance=advance)
        return np.stack([_array(completion) for completion in done])

    def encode_question(self, question: str) -> npt.NDArray[Any]:
        """Return the vector of a question. Several threads may call this method at the same time."""
        return _array(self._engine.complete(self._request(question)))

    def close(self) -> None:
        """Free the model."""
        self._engine.close()

    def _request(self, text: str) -> Any:
        from groundup.inference import GenerationRequest

        ids = self._tokenizer.encode(text)[: self._max_tokens]
        return GenerationRequest(prompt=tuple(ids), max_tokens=0, embedding=True)


def _array(completion: Completion) -> npt.NDArray[Any]:
    assert completion.embedding is not None, "each request asks for an embedding"
    return completion.embedding.numpy()


@lru_cache(maxsize=_OPEN_ENCODERS)
def open_encoder(record: EncoderRecord) -> Encoder:
    """Return the encoder of a model. It stays open, because all indexes of a process use the same one."""
    return Encoder(record)


class Vectors:
    """The vectors of the passages of an index.

    Args:
        directory: Directory of the index.
        record: The model that computed them.

    Raises:
        FormatError: The model changed.
    """

    def __init__(self, directory: Path, record: EncoderRecord) -> None:
        import numpy as np

        record.require_unchanged(directory)
        self.record = record
        self._vectors_ND: npt.NDArray[np.float16] = np.load(directory / VECTORS, mmap_mode="r", allow_pickle=False)
        self._mean_D: npt.NDArray[np.float32] = np.load(directory / MEAN, allow_pickle=False)

    def scores(self, question: str) -> npt.NDArray[Any]:
        """Return the similarity of each passage to a question.

        The mean of all vectors is subtracted first: hidden states of causal language models have a large common part
        (Ethayarajh 2019, arXiv:1909.00512).

        Args:
            question: The question.
        """
        question_D = open_encoder(self.record).encode_question(question) - self._mean_D
        return self._vectors_ND @ question_D


def fused(word_scores: npt.NDArray[Any], dense_scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Combine two rankings of passages by weighted reciprocal rank fusion.

    Args:
        word_scores: BM25 score of each passage.
        dense_scores: Similarity of each passage.

    Returns:
        A score for each passage.
    """
    # Passages without a word of the question have equal scores, so their ranks have no meaning.
    by_words = (word_scores > 0) / (_RANK_CONSTANT + _ranks(word_scores))
    return by_words + _DENSE_WEIGHT / (_RANK_CONSTANT + _ranks(dense_scores))


def _ranks(scores: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return the rank of each score, from 1."""
    import numpy as np

    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def write_vectors(
    directory: Path,
    texts: Sequence[str],
    record: EncoderRecord,
    known: dict[str, npt.NDArray[Any]],
    advance: Callable[[float], object],
) -> dict[str, Any]:
    """Write the vectors of the passages of an index. Known vectors are copied.

    Args:
        directory: Directory of the new index.
        texts: Texts of all passages, each with its title.
        record: The model.
        known: Vectors of texts of an earlier index by `text_id`.
        advance: Called with the number of texts that were encoded since the last call.

    Returns:
        Facts for the artifact.
    """
    import numpy as np

    encoder = Encoder(record)
    try:
        shape = (len(texts), encoder.dim)
        vectors_ND = np.lib.format.open_memmap(directory / VECTORS, mode="w+", dtype=np.float16, shape=shape)
        new = []
        for number, text in enumerate(texts):
            if (vector_D := known.get(text_id(text))) is not None:
                vectors_ND[number] = vector_D
            else:
                new.append(number)
        advance(len(texts) - len(new))
        for start in range(0, len(new), _BATCH):
            numbers = new[start : start + _BATCH]
            vectors_ND[numbers] = encoder.encode([texts[number] for number in numbers], advance)
        mean_D = vectors_ND.mean(0, dtype=np.float32)
    finally:
        encoder.close()
    vectors_ND.flush()
    np.save(directory / MEAN, mean_D, allow_pickle=False)
    return {"encoder": asdict(record), "encoded_passages": len(new)}
