"""`groundup tokenize`: train a tokenizer on a corpus, and write the tokenized corpus as shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.commands._result import result_facts, show_result
from groundup.core.artifact import Artifact, Work, begin, read
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.files import file_digest
from groundup.core.pipeline import read_output
from groundup.core.types import Split

if TYPE_CHECKING:
    from groundup.tokenizer import Tokenizer

_SPLITS: tuple[Split, Split] = ("train", "validation")
_DIRECTORY = "tokenizer"
_CHECKED_BYTES = 1_000_000  # Size of the sample on which tiktoken is compared with the tokenizer.

EXAMPLE = "groundup tokenize runs/notes/corpus --out runs/notes/tokens"


class TokenizeConfig(Config):
    """Settings of `groundup tokenize`."""

    corpus: Path = setting(help="corpus directory, written by groundup collect", positional=True)
    out: Path = setting(help="output directory for the tokenizer and the token shards", flag=True)
    vocab_size: int | None = setting(None, help="vocabulary size, a multiple of 64; default: by corpus size", flag=True)
    tokenizer: Path | None = setting(None, help="model or run whose tokenizer to use instead of a new one", flag=True)
    extend: int | None = setting(None, help="number of tokens to add to the tokenizer of --tokenizer", flag=True, gt=0)
    sample_bytes: int = setting(200_000_000, help="number of corpus bytes to train the tokenizer on", gt=0)
    threads: int | None = setting(None, help="number of threads for encoding; default: one per core", gt=0)


def run(config: TokenizeConfig, *, console: Console | None = None) -> Artifact:
    """Train or load a tokenizer, and encode the training and validation splits of a corpus.

    If an interrupted run is started again, it reuses its tokenizer and its finished shards.

    Raises:
        DataError: The corpus does not exist, or it has too little text for the vocabulary size.
        ConfigError: The vocabulary size is invalid, or the settings contradict each other.
    """
    from groundup.corpus import read_card, read_documents
    from groundup.corpus.shards import first_bytes
    from groundup.data import require_shard_space, write_shards
    from groundup.tokenizer import CorpusEncoder

    console = console or Console()
    given, digest = _given_tokenizer(config)
    inputs = {"corpus": read_output(config.corpus, "collect").digest} | digest
    keys = config.model_dump(include={"vocab_size", "sample_bytes", *(["extend"] if config.extend else [])})
    work = begin(config.out, "tokenize", keys, inputs, console=console)
    if work.state == "done":
        return show_result(console, config.out, read(config.out))

    def texts(split: Split) -> Iterator[str]:
        return (document.text for document in read_documents(config.corpus, split))

    card = read_card(config.corpus)
    sizes = {split: card[split]["bytes"] for split in _SPLITS}
    tokenizer = _vocabulary(config, given, work, texts("train"), sizes["train"], console)
    sample = list(first_bytes(texts("train"), _CHECKED_BYTES))
    encoder = CorpusEncoder(tokenizer, sample, threads=config.threads)
    if not encoder.fast:
        console.warn(f"Encoding without tiktoken is slow. tiktoken is not used, because {encoder.reason}.")
    documents, total, size = sum(card[s]["documents"] for s in _SPLITS), sum(sizes.values()), tokenizer.vocab_size
    require_shard_space(work.directory, sample, encoder.encode, vocab_size=size, text_bytes=total, documents=documents)
    with console.progress("encoding", total, "bytes") as progress:
        written = write_shards(
            work.directory,
            {split: texts(split) for split in _SPLITS},
            encoder.encode,
            vocab_size=size,
            bos_id=tokenizer.bos_id,
            progress=progress.advance,
            finished=work,
        )
    train, validation = (written.splits[split] for split in _SPLITS)
    bytes_per_token = round(train.bytes / max(train.tokens, 1), 4)
    counts = f"{train.tokens:,} training tokens, {validation.tokens:,} validation tokens"
    summary = f"{counts}, vocabulary size {size:,}, {bytes_per_token:.2f} bytes per token"
    facts = {
        "vocab_size": size,
        "bytes_per_token": bytes_per_token,
        "train": asdict(train),
        "validation": asdict(validation),
        "fast_encoding": encoder.fast,
        "data": [{key: each[key] for key in ("name", "license", "documents", "bytes")} for each in card["sources"]],
        **result_facts(summary),
    }
    files = [*written.files, *(work.directory / _DIRECTORY).iterdir()]
    return show_result(console, config.out, work.finish(facts, files))


def _given_tokenizer(config: TokenizeConfig) -> tuple[Tokenizer | None, dict[str, str]]:
    """Return the tokenizer that the settings name, or None, and its digest as an input of the stage."""
    if config.tokenizer and config.vocab_size:
        raise ConfigError(
            f"vocab_size = {config.vocab_size:,} and tokenizer = {config.tokenizer}",
            rule="vocab_size applies only to a new tokenizer",
            fix="Omit one of the two.",
        )
    if config.extend and not config.tokenizer:
        raise ConfigError(
            f"extend = {config.extend:,} without tokenizer",
            rule="extend adds tokens to an existing tokenizer",
            fix="Set tokenizer, or set vocab_size instead of extend.",
        )
    if not config.tokenizer:
        return None, {}
    from groundup.hub.resolve import tokenizer_directory
    from groundup.tokenizer import TOKENIZER_FILE, Tokenizer

    directory = tokenizer_directory(config.tokenizer)
    tokenizer = Tokenizer.load(directory)
    return tokenizer, {"tokenizer": file_digest(directory / TOKENIZER_FILE)}


def _vocabulary(
    config: TokenizeConfig, given: Tokenizer | None, work: Work, texts: Iterator[str], size: int, console: Console
) -> Tokenizer:
    """Train, extend or copy the tokenizer and save it, or load the tokenizer that an interrupted run saved."""
    from groundup.corpus.shards import first_bytes
    from groundup.tokenizer import TOKENIZER_FILE, Tokenizer, extend_tokenizer, train_tokenizer, vocab_size_for

    directory, sample_bytes = work.directory / _DIRECTORY, min(config.sample_bytes, size)
    if work.has(directory / TOKENIZER_FILE):
        return Tokenizer.load(directory)
    tokenizer = given
    if given is None:
        vocab_size, allow_smaller = config.vocab_size or vocab_size_for(size), config.vocab_size is None
        with console.progress("training the tokenizer", sample_bytes, "bytes") as progress:
            sample = first_bytes(texts, sample_bytes, progress.advance)
            tokenizer = train_tokenizer(sample, vocab_size, allow_smaller=allow_smaller)
    elif config.extend:
        with console.progress("extending the tokenizer", sample_bytes, "bytes") as progress:
            sample = first_bytes(texts, sample_bytes)
            tokenizer = extend_tokenizer(given, sample, config.extend, progress=progress.advance)
    assert tokenizer is not None
    work.keep(tokenizer.save(directory))
    return tokenizer
