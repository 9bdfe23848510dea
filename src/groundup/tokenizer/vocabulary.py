"""Constants of groundup's vocabularies: special tokens, split pattern, byte alphabet and size."""

from __future__ import annotations

import math

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"

# They come first, so their ids (0, 1, 2, ...) do not depend on the vocabulary size. Reserved tokens have embedding rows
# from the start, so a later stage can use them without resizing the model.
SPECIAL_TOKENS = (END_OF_TEXT, PAD, IM_START, IM_END, *(f"<|reserved_{i}|>" for i in range(12)))

# Exactly the pattern of Qwen2: llama.cpp identifies pre-tokenizers by name (here "qwen2") and refuses unknown ones.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

VOCAB_MULTIPLE = 64  # matmuls with other sizes are slower on all devices
MIN_VOCAB_SIZE = math.ceil((256 + len(SPECIAL_TOKENS)) / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
MAX_DERIVED_VOCAB_SIZE = 65_536  # maximum size whose ids fit into uint16

_REFERENCE_BYTES = 40_000_000
_REFERENCE_VOCAB = 8_192


def vocab_size_for(corpus_bytes: int) -> int:
    """Return a vocabulary size for a corpus, proportional to the square root of its bytes.

    A larger vocabulary gives shorter sequences, but fewer occurrences of each token. The number of distinct words of a
    text with n words is about proportional to the square root of n (Heaps' law).

    Args:
        corpus_bytes: UTF-8 bytes of the training set.

    Returns:
        The size including special tokens, a multiple of 64: 8,192 for 40 MB, 65,536 from 2.6 GB.
    """
    size = _REFERENCE_VOCAB * math.sqrt(corpus_bytes / _REFERENCE_BYTES)
    rounded = round(size / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return min(max(rounded, MIN_VOCAB_SIZE), MAX_DERIVED_VOCAB_SIZE)


def _byte_alphabet() -> dict[str, int]:
    # GPT-2's mapping: printable Latin-1 characters represent their own byte, other bytes use characters from U+0100. So
    # the vocabulary can be written as JSON without spaces and control characters.
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(moved)}


BYTE_OF = _byte_alphabet()  # character in the vocabulary -> byte
