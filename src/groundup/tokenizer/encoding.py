"""A whole corpus to ids at tiktoken's speed, with the ids that the tokenizer gives."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tiktoken
from numpy.typing import NDArray

from groundup.core.types import well_formed
from groundup.tokenizer.tokenizer import Tokenizer
from groundup.tokenizer.torture import TORTURE

# The split that ByteLevel does by itself when it is told to (use_regex): GPT-2's.
_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# tiktoken's regex engine overflows its stack on some 10^5 or 10^6 spaces, and its releases before 2025 take
# quadratic time for a long piece. Cutting such a text would change its ids; the other engine takes it as it
# is.
_LONGEST_RUN = 10_000
_LONG_SPACE = re.compile(rf"\s{{{_LONGEST_RUN}}}")
_TEXTS_PER_TASK = 64


class CorpusEncoder:
    """Encodes many texts, in threads.

    tiktoken with the same vocabulary is several times faster than Hugging Face's library, but chooses merges
    by the token that they make and not by the pair, and has a regex engine of its own. So its ids are
    compared first, on texts made to be difficult and on a sample of the corpus; if any differ, the slow way
    is taken.

    Attributes:
        fast: whether tiktoken is used.
        reason: why it is not; empty where it is.
    """

    def __init__(self, tokenizer: Tokenizer, sample: Iterable[str], *, threads: int | None = None) -> None:
        """Prepare the fast way and check it.

        Args:
            tokenizer: whose ids to give.
            sample: texts of the corpus; about 1 MB is enough.
            threads: None: one for each core.
        """
        self._tokenizer = tokenizer
        self._threads = threads or os.cpu_count() or 1
        self._fast: tiktoken.Encoding | None = None
        self.reason = ""
        pattern = _split_pattern(tokenizer)
        if pattern is None:
            self.reason = "its pre-tokenizer or normalizer is one that tiktoken cannot express"
            return
        # No special tokens: what is not there cannot be matched in text.
        ranks = {text: token_id for token_id, text in tokenizer.text_tokens.items()}
        encoding = tiktoken.Encoding("groundup", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        for text in (*TORTURE.values(), *sample):
            if not _has_long_run(text) and encoding.encode_ordinary(text) != tokenizer.encode(text):
                self.reason = f"its ids differ in {text[:60]!r}"
                return
        self._fast = encoding

    @property
    def fast(self) -> bool:
        return self._fast is not None

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """The ids of each text, as `Tokenizer.encode` gives them: no BOS, nothing special."""
        tasks = [texts[start : start + _TEXTS_PER_TASK] for start in range(0, len(texts), _TEXTS_PER_TASK)]
        with ThreadPoolExecutor(self._threads) as pool:  # both libraries work outside the interpreter's lock
            return [ids for task in pool.map(self._encode_task, tasks) for ids in task]

    def _encode_task(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [self._encode_one(text) for text in texts]

    def _encode_one(self, text: str) -> NDArray[np.uint32]:
        if self._fast is None or _has_long_run(text):
            return np.array(self._tokenizer.encode(text), dtype=np.uint32)
        ids: NDArray[np.uint32] = self._fast.encode_to_numpy(well_formed(text))
        return ids


def _has_long_run(text: str) -> bool:
    if len(text) < _LONGEST_RUN:
        return False
    words = [len(word) for word in text.split()]
    if max(words, default=0) >= _LONGEST_RUN:
        return True
    return len(text) - sum(words) >= _LONGEST_RUN and _LONG_SPACE.search(text) is not None


def _split_pattern(tokenizer: Tokenizer) -> str | None:
    """The one regex that a tokenizer splits text with, or None where there is more to it."""
    definition = tokenizer.definition
    words = [token for token in definition["added_tokens"] if token["content"] not in tokenizer.markers]
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
