"""Token shards of a pretraining run, with their tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from groundup.core.artifact import read
from groundup.data import Loader, TokenShards
from groundup.data.tokens.loader import BatchPlacement
from groundup.distributed.ranks import Ranks
from groundup.kernels import Machine
from groundup.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PretrainingData:
    """Token shards with their tokenizer.

    Attributes:
        tokenizer: Tokenizer that encoded the shards.
        train: Training split.
        validation: Validation split.
        sources: Sources of the text for the model card, or None if they are unknown.
    """

    tokenizer: Tokenizer
    train: TokenShards
    validation: TokenShards
    sources: Any

    @classmethod
    def open(cls, directory: Path, ranks: Ranks) -> Self:
        """Open the output directory of `groundup tokenize`. The first rank verifies the token ids.

        Args:
            directory: Directory of the token shards.
            ranks: Ranks of the run.

        Raises:
            DataError: A shard contains ids that are not in the vocabulary.
        """
        train, validation = (TokenShards(directory, split) for split in ("train", "validation"))
        if ranks.first:
            train.require_known_ids()
            validation.require_known_ids()
        return cls(Tokenizer.load(directory / "tokenizer"), train, validation, read(directory).facts.get("data"))

    def loader(
        self, seed: int, ranks: Ranks, context: int, rows: int, machine: Machine, *, short_batches: int = 0
    ) -> Loader:
        """Return the loader of the training batches of this rank.

        Args:
            seed: Random seed of the order of the documents.
            ranks: Ranks of the run.
            context: Context length in tokens.
            rows: Number of sequences per micro-batch.
            machine: Machine with the device of the batches.
            short_batches: Number of micro-batches with short contexts; see `Loader`.
        """
        return Loader(
            self.train,
            context_length=context,
            batch_size=rows,
            bos_id=self.train.bos_id,
            place=BatchPlacement(ranks.rank, ranks.size, machine.device),
            seed=seed,
            short_batches=short_batches,
        )
