"""Reader of token shards. The files are memory-mapped and checked, and pickle is disabled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.core.checksums import digests_of
from groundup.core.errors import DataError, FormatError
from groundup.core.files import read_json
from groundup.core.types import Split
from groundup.data.tokens.format import FORMAT_VERSION, INDEX, PARTS, REMAKE, load_array, part_path, token_dtype

_SCANNED = 1 << 24  # Number of token ids that are checked in one operation.


class TokenShards:
    """One split of a tokenized corpus, as a sequence of documents.

    Attributes:
        directory: Directory of the shards.
        vocab_size: Vocabulary size. All token ids are smaller.
        bos_id: Id of the BOS token. The shards do not contain BOS, so readers must add it before every document.
        n_documents: Number of documents in the split.
        n_tokens: Number of tokens in the split, excluding BOS.
        n_bytes: Number of UTF-8 bytes in the split.
        lengths: Number of tokens of each document, (documents,).
        byte_lengths: Number of UTF-8 bytes of each document, (documents,).
    """

    def __init__(self, directory: Path, split: Split) -> None:
        """Open the shards of a split. Tokens are read only when they are accessed.

        Args:
            directory: Directory of the shards.
            split: Split to open.

        Raises:
            DataError: The directory does not contain token shards, or the split is empty.
            FormatError: A file is damaged or truncated, or the shards have another format version.
        """
        self.directory = directory
        path = directory / INDEX
        if not path.is_file():
            raise DataError(
                f"{path}: no such file",
                fix="Use the output directory of groundup tokenize, or run it again until it finishes.",
            )
        index = read_json(path)
        version = index.get("format_version")
        if version != FORMAT_VERSION:
            raise FormatError(
                f"{path}: format_version {version}",
                rule=f"this release reads token shards of format {FORMAT_VERSION}",
                fix="Run groundup tokenize again, or use the release that wrote them.",
            )
        try:
            self.vocab_size = int(index["vocab_size"])
            self.bos_id = int(index["bos_id"])
            self._records = list(index["shards"][split])
            shards = [self._open(record["name"], record) for record in self._records]
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: the index is incomplete ({error!r})", fix=REMAKE) from error
        if not shards:
            raise DataError(
                f"{directory}: no {split} documents",
                fix="Collect more text, or hold out a larger part of it for validation.",
            )
        self._tokens = [tokens for tokens, _, _ in shards]
        sizes = [len(tokens) for tokens in self._tokens]
        self._first_token = np.cumsum([0, *sizes], dtype=np.int64)
        self._begin = np.concatenate(
            [first + offsets[:-1] for first, (_, offsets, _) in zip(self._first_token, shards, strict=False)]
        )
        self.lengths: NDArray[np.int64] = np.concatenate([np.diff(offsets) for _, offsets, _ in shards])
        self.byte_lengths: NDArray[np.int64] = np.concatenate([lengths for _, _, lengths in shards])
        self.n_documents = len(self.lengths)
        self.n_tokens = int(self._first_token[-1])
        self.n_bytes = int(self.byte_lengths.sum())

    def document(self, index: int) -> NDArray[np.integer]:
        """Return the token ids of a document, excluding BOS, as a read-only view of the memory-mapped file."""
        begin = self._begin[index]
        shard = int(np.searchsorted(self._first_token, begin, side="right")) - 1
        start = begin - self._first_token[shard]
        return self._tokens[min(shard, len(self._tokens) - 1)][start : start + self.lengths[index]]

    def gather(self, documents: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the token id at position `offsets[i]` of document `documents[i]`, for each i.

        Args:
            documents: Indices of documents, (n,).
            offsets: Positions in these documents, (n,).

        Returns:
            Token ids, (n,).
        """
        places = self._begin[documents] + offsets
        if len(self._tokens) == 1:
            return self._tokens[0][places].astype(np.int64)
        shard_of = np.searchsorted(self._first_token, places, side="right") - 1
        ids = np.empty(len(places), dtype=np.int64)
        for shard in np.unique(shard_of):
            here = shard_of == shard
            ids[here] = self._tokens[shard][places[here] - self._first_token[shard]]
        return ids

    def verify(self) -> None:
        """Check that every file has the digest in the index, and that every token id is in the vocabulary.

        Raises:
            FormatError: A file has changed since it was written, or a token id is not in the vocabulary.
        """
        for record in self._records:
            paths = {part: part_path(self.directory, record["name"], part) for part in PARTS}
            found = digests_of(paths.values())
            for part, path in paths.items():
                if found[path] != record["digests"][part]:
                    raise FormatError(f"{path}: the digest differs from the one in {INDEX}", fix=REMAKE)
        self.require_known_ids()

    def require_known_ids(self) -> None:
        """Check that every token id is in the vocabulary.

        Raises:
            FormatError: A token id is not in the vocabulary. The message names the file and the position.
        """
        for record, tokens in zip(self._records, self._tokens, strict=True):
            for start in range(0, len(tokens), _SCANNED):
                part = tokens[start : start + _SCANNED]
                if int(part.max()) < self.vocab_size:
                    continue
                place = start + int(np.argmax(part >= self.vocab_size))
                raise FormatError(
                    f"{part_path(self.directory, record['name'], PARTS[0])}: id {int(tokens[place]):,} at position "
                    f"{place:,}, but the vocabulary has {self.vocab_size:,} ids",
                    rule="the file is damaged, or belongs to another vocabulary",
                    fix=REMAKE,
                )

    def _open(
        self, name: str, record: dict[str, int]
    ) -> tuple[NDArray[np.integer], NDArray[np.int64], NDArray[np.int64]]:
        tokens, offsets, byte_lengths = (load_array(part_path(self.directory, name, part)) for part in PARTS)
        whole = (
            tokens.dtype == token_dtype(self.vocab_size)
            and len(tokens) == record["tokens"]
            and len(byte_lengths) == record["documents"]
            and len(offsets) == record["documents"] + 1
            and offsets[0] == 0
            and offsets[-1] == len(tokens)
            and bool(np.all(np.diff(offsets) >= 0))
        )
        if not whole:
            raise FormatError(
                f"{self.directory / name}: {len(tokens):,} {tokens.dtype} in {len(byte_lengths):,} documents",
                rule="the files of a shard must match the index",
                fix=REMAKE,
            )
        return tokens, offsets, byte_lengths
