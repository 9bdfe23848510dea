"""Size, vocabulary and predictability of a training text: token shards, a corpus, or a folder of text files."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from groundup.core.artifact import ARTIFACT
from groundup.core.errors import DataError
from groundup.core.files import expand_home
from groundup.core.pipeline import read_output
from groundup.core.types import Split
from groundup.data import TokenShards
from groundup.data.tokens.format import INDEX
from groundup.train.planner.estimate import Text
from groundup.train.planner.forecast import HELD_OUT_SAMPLE_BYTES, SAMPLE_BYTES, ppmd_bits_per_byte
from groundup.train.planner.law import DEFAULT_LAW, Law, law_for

_FILES_SAMPLE_BYTES = SAMPLE_BYTES + HELD_OUT_SAMPLE_BYTES


@dataclass(frozen=True, slots=True)
class TrainingText:
    """A training text.

    Attributes:
        text: Size and predictability.
        vocab_size: Vocabulary size, or None if the text is not tokenized yet.
        law: Scaling law: fitted on this text by `groundup plan`, or the default law.
        skipped: Number of files that are not plain text and are not counted.
    """

    text: Text
    vocab_size: int | None = None
    law: Law = DEFAULT_LAW
    skipped: int = 0


def read_training_text(path: Path) -> TrainingText:
    """Measure a training text without training on it.

    Args:
        path: Token shards, a corpus directory, a run directory that contains one of them, or a folder or file of plain
            text. The text of other formats, such as PDF, is known only after `groundup collect`.

    Raises:
        DataError: There is no text.
    """
    path = expand_home(path)
    if is_tokenized(path):
        return _of_shards(_token_directory(path))
    for directory in (path, path / "corpus"):
        if (directory / ARTIFACT).is_file() and (directory / "card.json").is_file():
            return _of_corpus(directory)
    return _of_files(path)


def is_tokenized(path: Path) -> bool:
    """Return whether a path is that of token shards, or of a run directory that contains token shards."""
    return (_token_directory(expand_home(path)) / INDEX).is_file()


def token_shards_of(path: Path) -> TokenShards:
    """Return the training split of token shards, or of a run directory that contains token shards.

    Args:
        path: Path as for `read_training_text`.

    Raises:
        DataError: The path is a corpus or plain text, which must be tokenized first. The message contains the commands.
        FormatError: The token shards are damaged.
    """
    directory = _token_directory(expand_home(path))
    read_output(directory, "tokenize")
    return TokenShards(directory, "train")


def _token_directory(path: Path) -> Path:
    return path / "tokens" if (path / "tokens" / INDEX).is_file() else path


def ppmd_of_shards(directory: Path, decode: Callable[[Sequence[int]], str]) -> float | None:
    """Return the result of `ppmd_bits_per_byte` for random documents, or None if there is no validation split.

    Args:
        directory: Directory of the token shards.
        decode: Returns the text of token ids.
    """
    try:
        held_out = TokenShards(directory, "validation")
    except DataError:
        return None
    return _ppmd(_random_text(TokenShards(directory, "train"), decode), _random_text(held_out, decode))


def _ppmd(text: bytes, held_out: bytes) -> float | None:
    held_out = held_out[:HELD_OUT_SAMPLE_BYTES]
    return ppmd_bits_per_byte(text[:SAMPLE_BYTES], held_out) if held_out else None


def _random_text(shards: TokenShards, decode: Callable[[Sequence[int]], str]) -> bytes:
    """Return the UTF-8 text of random documents, at least `SAMPLE_BYTES` long if there are enough documents."""
    sample = bytearray()
    for index in np.random.default_rng(0).permutation(shards.n_documents):
        sample += decode(shards.document(int(index))[:SAMPLE_BYTES].tolist()).encode() + b"\n"
        if len(sample) >= SAMPLE_BYTES:
            break
    return bytes(sample)


def _of_shards(directory: Path) -> TrainingText:
    from groundup.tokenizer import Tokenizer

    shards = TokenShards(directory, "train")
    ppmd = ppmd_of_shards(directory, Tokenizer.load(directory / "tokenizer").decode)
    return TrainingText(
        Text(shards.n_bytes, shards.n_tokens + shards.n_documents, ppmd),
        shards.vocab_size,
        law_for(directory),
    )


def _of_corpus(directory: Path) -> TrainingText:
    from groundup.corpus import read_card, read_documents
    from groundup.corpus.shards import first_bytes

    def sample(split: Split) -> bytes:
        texts = (document.text for document in read_documents(directory, split))
        return "\n".join(first_bytes(texts, SAMPLE_BYTES)).encode()

    ppmd = _ppmd(sample("train"), sample("validation"))
    return TrainingText(Text(read_card(directory)["train"]["bytes"], None, ppmd))


def _of_files(path: Path) -> TrainingText:
    if not path.exists():
        raise DataError(f"{path}: no such file or directory", fix="Give token shards, a corpus, or a folder of text.")
    size, skipped, sample = 0, 0, bytearray()
    for file in _files(path):
        with file.open("rb") as opened:
            beginning = opened.read(_FILES_SAMPLE_BYTES)
        if not _is_text(beginning):
            skipped += 1
            continue
        size += file.stat().st_size
        if len(sample) < _FILES_SAMPLE_BYTES:
            sample += beginning
    if not size:
        raise DataError(
            f"{path}: no plain text", fix="Extract the text first: groundup collect --folder PATH --out OUT."
        )
    del sample[_FILES_SAMPLE_BYTES:]
    split = len(sample) * SAMPLE_BYTES // _FILES_SAMPLE_BYTES
    return TrainingText(Text(size, None, _ppmd(bytes(sample[:split]), bytes(sample[split:]))), skipped=skipped)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))


def _is_text(beginning: bytes) -> bool:
    """Return whether the beginning of a file is UTF-8 text. Its last character may be incomplete."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return bool(beginning) and b"\0" not in beginning
