"""Token shards of random subsets of a text, with the same held-out documents for all sizes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from groundup.core.artifact import begin
from groundup.core.console import Console
from groundup.corpus import read_documents
from groundup.data import TokenShards, write_shards
from groundup.data.tokens.format import INDEX
from groundup.recipes import bundled
from groundup.tokenizer import Tokenizer, train_tokenizer, vocab_size_for

MAX_HELD_OUT_BYTES = 1_000_000


@dataclass(frozen=True)
class Corpus:
    """Documents for training, and held-out documents.

    Attributes:
        path: A folder of files, a corpus directory, or an output directory of `groundup tokenize`. None means the text
            of the recipe quickstart.
        work: Directory for the collected corpus and for token shards.
    """

    path: Path | None
    work: Path

    @property
    def name(self) -> str:
        """Name of the corpus in the results, with a digest of the path because many directories are named `tokens`."""
        if self.path is None:
            return "quickstart"
        return f"{self.path.name}-{hashlib.sha256(str(self.path).encode()).hexdigest()[:8]}"

    @cached_property
    def documents(self) -> dict[str, list[str]]:
        """Texts of the splits "train" and "validation"; of the latter, at most `MAX_HELD_OUT_BYTES`."""
        found = self._shards() if self.path and (self.path / INDEX).is_file() else self._corpus()
        return found | {"validation": random_texts(found["validation"], MAX_HELD_OUT_BYTES)}

    def tokens(self, n_bytes: int | None) -> Path:
        """Return token shards of random training documents with `n_bytes` bytes in total, or of all documents.

        The tokenizer is trained on the subset, with the vocabulary size that `groundup tokenize` chooses.
        """
        size = "all" if n_bytes is None else f"{n_bytes / 1e6:g}mb"
        keys = {"text": str(self.path), "n_bytes": n_bytes}
        work = begin(self.work / "tokens" / f"{self.name}-{size}", "tokenize", keys, {}, console=Console(quiet=True))
        if work.state != "done":
            train = self.documents["train"]
            texts = {"train": random_texts(train, n_bytes), "validation": self.documents["validation"]}
            total = sum(len(text.encode()) for text in texts["train"])
            tokenizer = train_tokenizer(texts["train"], vocab_size_for(total), allow_smaller=True)
            files = tokenizer.save(work.directory / "tokenizer")
            sizes = {"vocab_size": tokenizer.vocab_size, "bos_id": tokenizer.bos_id}
            written = write_shards(work.directory, texts, tokenizer.encode_batch, **sizes)
            splits = {split: asdict(each) for split, each in written.splits.items()}
            work.finish({**splits, "vocab_size": tokenizer.vocab_size}, [*written.files, *files])
        return work.directory

    def _shards(self) -> dict[str, list[str]]:
        assert self.path is not None
        decode = Tokenizer.load(self.path / "tokenizer").decode
        splits = {split: TokenShards(self.path, split) for split in ("train", "validation")}
        return {
            split: [decode(shards.document(number).tolist()) for number in range(shards.n_documents)]
            for split, shards in splits.items()
        }

    def _corpus(self) -> dict[str, list[str]]:
        directory = self.path
        if directory is None or not (directory / "card.json").is_file():
            source = [str(bundled()["quickstart"])] if directory is None else ["--folder", str(directory)]
            directory = self.work / "corpora" / self.name
            command = [sys.executable, "-m", "groundup", "collect", *source, "--out", str(directory), "--quiet"]
            subprocess.run(command, stdout=sys.stderr, check=True)
        return {split: [each.text for each in read_documents(directory, split)] for split in ("train", "validation")}


def random_texts(texts: Sequence[str], n_bytes: int | None) -> list[str]:
    """Return random texts with about `n_bytes` UTF-8 bytes in total, always the same ones; all texts if it is None."""
    if n_bytes is None:
        return list(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    ends = np.cumsum([len(texts[index].encode()) for index in order])
    count = max(1, int(np.searchsorted(ends, n_bytes)))
    return [texts[index] for index in order[:count]]
