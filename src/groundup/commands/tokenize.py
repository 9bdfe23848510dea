"""`groundup tokenize`: a corpus to a vocabulary and token shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from groundup.commands._closing import closing, say_result
from groundup.core.artifact import Artifact, begin, read
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.files import file_digest
from groundup.core.pipeline import read_output
from groundup.core.types import Split

_SPLITS: tuple[Split, Split] = ("train", "validation")
_TOKENIZER = "tokenizer.json"
_CHECKED_BYTES = 1_000_000  # of the corpus, encoded both ways before the fast way is trusted


class TokenizeConfig(Config):
    """Which vocabulary, and where the tokens go."""

    corpus: Path = setting(help="what groundup collect left", positional=True)
    out: Path = setting(help="directory for the tokenizer and the token shards", flag=True)
    vocab_size: int | None = setting(None, help="ids in all, a multiple of 64; default: from the corpus", flag=True)
    tokenizer: Path | None = setting(None, help="use that of this model (a directory, or a run), train none", flag=True)
    extend: int | None = setting(None, help="add so many tokens, learned here, to that tokenizer", flag=True, gt=0)
    sample_bytes: int = setting(200_000_000, help="train the vocabulary on this much of the corpus", gt=0)
    threads: int | None = setting(None, help="encoding threads; default: one for each core", gt=0)


def run(config: TokenizeConfig, *, console: Console | None = None) -> Artifact:
    """Train a vocabulary on the training split, or take one, and encode both splits.

    A run that was cut off keeps its vocabulary and its finished shards.

    Raises:
        DataError: no corpus there, or too little text for the vocabulary.
        ConfigError: a vocabulary size that cannot be, or one given beside a tokenizer; no tokenizer to extend.
    """
    from groundup.corpus import read_card, read_documents
    from groundup.data import require_room, write_shards
    from groundup.tokenizer import CorpusEncoder, Tokenizer, extend_tokenizer, train_tokenizer, vocab_size_for

    console = console or Console()
    if config.tokenizer and config.vocab_size:
        raise ConfigError(
            f"vocab_size = {config.vocab_size:,} and tokenizer = {config.tokenizer}",
            rule="a tokenizer that is given has its size already",
            fix="Leave one of the two out.",
        )
    if config.extend and not config.tokenizer:
        raise ConfigError(
            f"extend = {config.extend:,} and no tokenizer",
            rule="a vocabulary that is learned here is as large as vocab_size says",
            fix="Give tokenizer, or vocab_size in place of extend.",
        )
    inputs = {"corpus": read_output(config.corpus, "collect").digest}
    given = None
    if config.tokenizer:
        directory = _directory_of_tokenizer(config.tokenizer)
        given = Tokenizer.load(directory)
        inputs["tokenizer"] = file_digest(directory / _TOKENIZER)
    keys = config.model_dump(include={"vocab_size", "sample_bytes", *(["extend"] if config.extend else [])})
    work = begin(config.out, "tokenize", keys, inputs, console=console)
    if work.state == "done":
        return say_result(console, config.out, read(config.out))

    def texts(split: Split) -> Iterator[str]:
        return (document.text for document in read_documents(config.corpus, split))

    card = read_card(config.corpus)
    sizes = {split: card[split]["bytes"] for split in _SPLITS}
    kept = work.directory / "tokenizer"
    sample_bytes = min(config.sample_bytes, sizes["train"])
    if work.has(kept / _TOKENIZER):
        tokenizer = Tokenizer.load(kept)
    elif given:
        tokenizer = given
        if config.extend:
            with console.progress("extending the vocabulary", sample_bytes, "bytes") as progress:
                read_once = _first(texts("train"), sample_bytes)
                tokenizer = extend_tokenizer(given, read_once, config.extend, progress=progress.advance)
        work.keep(tokenizer.save(kept))
    else:
        size = config.vocab_size or vocab_size_for(sizes["train"])
        with console.progress("training the vocabulary", sample_bytes, "bytes") as progress:
            read_once = _first(texts("train"), sample_bytes, progress.advance)
            tokenizer = train_tokenizer(read_once, size, at_most=config.vocab_size is None)
        work.keep(tokenizer.save(kept))

    sample = list(_first(texts("train"), _CHECKED_BYTES))
    encoder = CorpusEncoder(tokenizer, sample, threads=config.threads)
    if not encoder.fast:
        console.warn(f"Encoding the slow way, since this tokenizer and tiktoken differ: {encoder.reason}.")
    require_room(
        work.directory,
        sample,
        encoder.encode,
        vocab_size=tokenizer.vocab_size,
        text_bytes=sum(sizes.values()),
        documents=sum(card[split]["documents"] for split in _SPLITS),
    )
    with console.progress("encoding", sum(sizes.values()), "bytes") as progress:
        written = write_shards(
            work.directory,
            {split: texts(split) for split in _SPLITS},
            encoder.encode,
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.bos_id,
            progress=progress.advance,
            finished=work,
        )
    train, validation = (written.splits[split] for split in _SPLITS)
    bytes_per_token = round(train.bytes / max(train.tokens, 1), 4)
    facts = {
        "vocab_size": tokenizer.vocab_size,
        "bytes_per_token": bytes_per_token,
        "train": asdict(train),
        "validation": asdict(validation),
        "fast_encoding": encoder.fast,
        **closing(
            f"{train.tokens:,} tokens to train on, {validation.tokens:,} held out; vocabulary "
            f"{tokenizer.vocab_size:,}, {bytes_per_token:.2f} bytes per token"
        ),
    }
    return say_result(console, config.out, work.finish(facts, [*written.files, *kept.iterdir()]))


def _directory_of_tokenizer(path: Path) -> Path:
    """Where the tokenizer lies that `path` means: a model or what this stage left, or else the model of a run."""
    for directory in (path, path / "tokenizer"):
        if (directory / _TOKENIZER).is_file():
            return directory
    from groundup.hub.resolve import resolve_model

    try:
        return resolve_model(path)
    except DataError:
        return path  # what a tokenizer needs is said when it is opened


def _first(texts: Iterator[str], limit: int, progress: Callable[[int], None] = lambda _: None) -> Iterator[str]:
    # A corpus is in the order of its documents' hashes: its beginning is a random sample.
    taken = 0
    while taken < limit and (text := next(texts, None)) is not None:
        yield text
        size = len(text.encode())
        taken += size
        progress(size)
