"""Size, vocabulary and compressibility of a training text: token shards, a corpus, or a folder of text files."""

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
from groundup.data import TokenShards
from groundup.data.tokens.format import INDEX
from groundup.train.planner.estimate import Text
from groundup.train.planner.forecast import COMPRESSED_BYTES, compression
from groundup.train.planner.law import DEFAULT_LAW, Law, law_for


@dataclass(frozen=True, slots=True)
class TrainingText:
    """A training text.

    Attributes:
        text: Size and compression.
        vocab_size: Vocabulary size, or None if the text is not tokenized yet.
        law: Scaling law: fitted on this text by `groundup plan --ladder`, or the default law.
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
    for directory in (path, path / "tokens"):
        if (directory / INDEX).is_file():
            return _of_shards(directory)
    for directory in (path, path / "corpus"):
        if (directory / ARTIFACT).is_file() and (directory / "card.json").is_file():
            return _of_corpus(directory)
    return _of_files(path)


def token_shards_of(path: Path) -> TokenShards:
    """Return the training split of token shards, or of a run directory that contains token shards.

    Args:
        path: Path as for `read_training_text`.

    Raises:
        DataError: The path is a corpus or plain text, which must be tokenized first. The message contains the commands.
        FormatError: The token shards are damaged.
    """
    path = expand_home(path)
    directory = path / "tokens" if (path / "tokens" / INDEX).is_file() else path
    read_output(directory, "tokenize")
    return TokenShards(directory, "train")


def sample_text(shards: TokenShards, decode: Callable[[Sequence[int]], str]) -> bytes:
    """Return the UTF-8 text of random documents, at least `COMPRESSED_BYTES` long if there are enough documents.

    Args:
        shards: Token shards.
        decode: Returns the text of token ids.
    """
    sample = bytearray()
    for index in np.random.default_rng(0).permutation(shards.n_documents):
        sample += decode(shards.document(int(index))[:COMPRESSED_BYTES].tolist()).encode()
        if len(sample) >= COMPRESSED_BYTES:
            break
    return bytes(sample)


def _of_shards(directory: Path) -> TrainingText:
    from groundup.tokenizer import Tokenizer

    shards = TokenShards(directory, "train")
    sample = sample_text(shards, Tokenizer.load(directory / "tokenizer").decode)
    return TrainingText(
        Text(shards.n_bytes, shards.n_tokens + shards.n_documents, compression(sample)),
        shards.vocab_size,
        law_for(directory),
    )


def _of_corpus(directory: Path) -> TrainingText:
    from groundup.corpus import read_card, read_documents
    from groundup.corpus.shards import first_bytes

    texts = (document.text for document in read_documents(directory, "train"))
    sample = "".join(first_bytes(texts, COMPRESSED_BYTES)).encode()
    return TrainingText(Text(read_card(directory)["train"]["bytes"], None, compression(sample)))


def _of_files(path: Path) -> TrainingText:
    if not path.exists():
        raise DataError(f"{path}: no such file or directory", fix="Give token shards, a corpus, or a folder of text.")
    size, skipped, sample = 0, 0, bytearray()
    for file in _files(path):
        with file.open("rb") as opened:
            beginning = opened.read(COMPRESSED_BYTES)
        if not _is_text(beginning):
            skipped += 1
            continue
        size += file.stat().st_size
        if len(sample) < COMPRESSED_BYTES:
            sample += beginning
    if not size:
        raise DataError(
            f"{path}: no plain text", fix="Extract the text first: groundup collect --folder PATH --out OUT."
        )
    return TrainingText(Text(size, None, compression(bytes(sample))), skipped=skipped)


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
