"""What our vocabularies consist of: special tokens, the split pattern, the 256 bytes; and their size."""

from __future__ import annotations

import math

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"

# First in the vocabulary, so that their ids (0, 1, 2, ...) are the same whatever its size. The reserved ones
# have rows in the embedding from the start: a later stage can give them a meaning without resizing a trained
# model.
SPECIAL_TOKENS = (END_OF_TEXT, PAD, IM_START, IM_END, *(f"<|reserved_{i}|>" for i in range(12)))

# Qwen2's, to the letter: llama.cpp knows pre-tokenizers by name, this one as "qwen2", and refuses unknown
# ones.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

VOCAB_MULTIPLE = 64  # matrix products of a ragged width are slow on every device
SMALLEST_VOCAB = math.ceil((256 + len(SPECIAL_TOKENS)) / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
LARGEST_DERIVED_VOCAB = 65_536  # the last size whose ids fit in uint16

_REFERENCE_BYTES = 40_000_000
_REFERENCE_VOCAB = 8_192


def vocab_size_for(corpus_bytes: int) -> int:
    """The vocabulary size for a corpus, special tokens included: grows with the square root of its bytes.

    A bigger vocabulary makes shorter sequences, but each token is then seen less often; the number of
    distinct words in a text of n words grows about as the square root of n (Heaps' law), and so does what a
    vocabulary can learn.

    Args:
        corpus_bytes: UTF-8 bytes of the text to train on.

    Returns:
        a multiple of 64: 8,192 at 40 MB, 65,536 from 2.6 GB.
    """
    wanted = _REFERENCE_VOCAB * math.sqrt(corpus_bytes / _REFERENCE_BYTES)
    rounded = round(wanted / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return min(max(rounded, SMALLEST_VOCAB), LARGEST_DERIVED_VOCAB)


def _byte_alphabet() -> dict[str, int]:
    # GPT-2's mapping: a printable Latin-1 character stands for its own byte, the others are moved up from
    # U+0100 on, so that any byte string can be written in a JSON vocabulary without spaces or control
    # characters.
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(moved)}


BYTE_OF = _byte_alphabet()  # the character that stands for a byte in the vocabulary -> the byte
