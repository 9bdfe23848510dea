"""Fast encoding of a corpus with tiktoken, with the same ids as the tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tiktoken
from numpy.typing import NDArray

from groundup.core.types import well_formed
from groundup.tokenizer.edge_cases import EDGE_CASES
from groundup.tokenizer.tokenizer import Tokenizer

# The pattern of ByteLevel with use_regex: GPT-2's.
_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# tiktoken's regex engine overflows its stack on 10^5 to 10^6 spaces, and releases before 2025 need quadratic time for a
# long word. Splitting such a text would change its ids, so Hugging Face's library encodes it.
_MAX_RUN = 10_000
_LONG_SPACE = re.compile(rf"\s{{{_MAX_RUN}}}")
_TEXTS_PER_TASK = 64


class CorpusEncoder:
    """A multi-threaded encoder of texts that uses tiktoken if its ids are the same.

    tiktoken is several times faster than Hugging Face's library for the same vocabulary. But it selects merges by the
    resulting token and not by the pair, and it has another regex engine. So both are compared first, on edge cases and
    on a sample of the corpus. If any id differs, tiktoken is not used.

    Attributes:
        reason: Why tiktoken is not used; empty if it is.
    """

    def __init__(self, tokenizer: Tokenizer, sample: Iterable[str], *, threads: int | None = None) -> None:
        """Create the tiktoken encoding and compare it with the tokenizer.

        Args:
            tokenizer: The tokenizer.
            sample: Texts of the corpus; about 1 MB is enough.
            threads: Number of threads. Default: one per core.
        """
        self._tokenizer = tokenizer
        self._threads = threads or os.cpu_count() or 1
        self._fast: tiktoken.Encoding | None = None
        self.reason = ""
        pattern = _split_pattern(tokenizer)
        if pattern is None:
            self.reason = "tiktoken does not support its pre-tokenizer or normalizer"
            return
        # Without special tokens, text cannot match them.
        ranks = {text: token_id for token_id, text in tokenizer.text_tokens.items()}
        encoding = tiktoken.Encoding("groundup", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        for text in (*EDGE_CASES.values(), *sample):
            if not _has_long_run(text) and encoding.encode_ordinary(text) != tokenizer.encode(text):
                self.reason = f"the ids differ for {text[:60]!r}"
                return
        self._fast = encoding

    @property
    def fast(self) -> bool:
        """Whether tiktoken is used."""
        return self._fast is not None

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Return the ids of each text, equal to `Tokenizer.encode`: without BOS and special tokens.

        Args:
            texts: The texts.
        """
        tasks = [texts[start : start + _TEXTS_PER_TASK] for start in range(0, len(texts), _TEXTS_PER_TASK)]
        with ThreadPoolExecutor(self._threads) as pool:  # both libraries release the GIL
            return [ids for task in pool.map(self._encode_task, tasks) for ids in task]

    def _encode_task(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [self._encode_one(text) for text in texts]

    def _encode_one(self, text: str) -> NDArray[np.uint32]:
        if self._fast is None or _has_long_run(text):
            return np.array(self._tokenizer.encode(text), dtype=np.uint32)
        ids: NDArray[np.uint32] = self._fast.encode_to_numpy(well_formed(text))
        return ids


def _has_long_run(text: str) -> bool:
    if len(text) < _MAX_RUN:
        return False
    words = [len(word) for word in text.split()]
    if max(words, default=0) >= _MAX_RUN:
        return True
    return len(text) - sum(words) >= _MAX_RUN and _LONG_SPACE.search(text) is not None


def _split_pattern(tokenizer: Tokenizer) -> str | None:
    """Return the regex with which a tokenizer splits text; None if it uses anything else."""
    definition = tokenizer.definition
    words = [token for token in definition["added_tokens"] if token["content"] not in tokenizer.control_tokens]
    if definition["normalizer"] is not None or words or not tokenizer.byte_level:
        return None
    match definition["pre_tokenizer"]:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return _GPT2_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(pattern)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None
