"""Fast encoding of a corpus with tiktoken, which is used only if it gives the same ids as the tokenizer."""

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

# The split pattern of GPT-2, which the pre-tokenizer ByteLevel applies if use_regex is true.
_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# The stack of tiktoken's regex engine overflows for texts with 10^5 to 10^6 consecutive spaces. tiktoken releases
# before 2025 also need quadratic time for a long word. Splitting such a text would change its ids, so it is encoded
# with Hugging Face's tokenizers library.
_MAX_RUN = 10_000
_LONG_SPACE = re.compile(rf"\s{{{_MAX_RUN}}}")
_TEXTS_PER_TASK = 64


class CorpusEncoder:
    """A multi-threaded encoder that uses tiktoken if tiktoken gives the same ids as the tokenizer.

    For the same vocabulary, tiktoken is several times faster than Hugging Face's tokenizers library. However, tiktoken
    selects merges by the resulting token and not by the pair of tokens, and its regex engine is different. Therefore
    the ids of tiktoken and of the tokenizer are first compared for edge-case texts and for a sample of the corpus. If
    any id differs, tiktoken is not used.

    Attributes:
        reason: The reason why tiktoken is not used, or "" if tiktoken is used.
    """

    def __init__(self, tokenizer: Tokenizer, sample: Iterable[str], *, threads: int | None = None) -> None:
        """Create the tiktoken encoding and compare it with the tokenizer.

        Args:
            tokenizer: The tokenizer.
            sample: Texts of the corpus. About 1 MB of text is sufficient for the comparison.
            threads: Number of threads. By default, one thread per CPU core is used.
        """
        self._tokenizer = tokenizer
        # The threads live as long as the encoder, because tiktoken builds its automata again in each new thread.
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
        self._fast: tiktoken.Encoding | None = None
        self.reason = ""
        pattern = _split_pattern(tokenizer)
        if pattern is None:
            self.reason = "tiktoken does not support the pre-tokenizer or normalizer of this tokenizer"
            return
        # tiktoken takes twice as long without any special token: its search for special tokens then matches everywhere.
        # Text is never encoded as this special token, because it is not allowed in any call.
        ranks = {text: token_id for token_id, text in tokenizer.text_tokens.items()}
        special = {"<|unused|>": max(ranks.values()) + 1}
        encoding = tiktoken.Encoding("groundup", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)
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
        """Return the ids of each text, without special tokens such as BOS. `Tokenizer.encode` gives the same ids.

        Args:
            texts: The texts.
        """
        tasks = [texts[start : start + _TEXTS_PER_TASK] for start in range(0, len(texts), _TEXTS_PER_TASK)]
        # tiktoken and tokenizers release the GIL.
        return [ids for task in self._pool.map(self._encode_task, tasks) for ids in task]

    def _encode_task(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        return [self._encode_one(text) for text in texts]

    def _encode_one(self, text: str) -> NDArray[np.uint32]:
        if self._fast is None or _has_long_run(text):
            return np.array(self._tokenizer.encode(text), dtype=np.uint32)
        ids: NDArray[np.uint32] = self._fast.encode_to_numpy(well_formed(text), disallowed_special=())
        return ids


def _has_long_run(text: str) -> bool:
    """Return whether a text has a word or white space of at least `_MAX_RUN` characters.

    Such a run contains a whole block of half this size, and the first word of a block is found fast. So most texts are
    not split into words. Splitting a book takes half as long as encoding it, and holds the GIL.
    """
    half = _MAX_RUN // 2
    blocks = (text[start : start + half] for start in range(0, len(text) - _MAX_RUN + half, half))
    if not any(block.isspace() or len(block.split(None, 1)[0]) == half for block in blocks):
        return False
    words = [len(word) for word in text.split()]
    if max(words, default=0) >= _MAX_RUN:
        return True
    return len(text) - sum(words) >= _MAX_RUN and _LONG_SPACE.search(text) is not None


def _split_pattern(tokenizer: Tokenizer) -> str | None:
    """Return the regular expression with which a tokenizer splits text.

    If the tokenizer has a normalizer or another kind of pre-tokenizer, None is returned.
    """
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
