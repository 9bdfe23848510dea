"""Constants of groundup's vocabularies: special tokens, split pattern, byte alphabet and vocabulary sizes."""

from __future__ import annotations

import math

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"

# Special tokens have the lowest ids (0, 1, 2, ...), so that their ids do not depend on the vocabulary size. A model has
# embeddings for the reserved tokens from the start. Later training stages can use these tokens without resizing the
# token embeddings.
SPECIAL_TOKENS = (END_OF_TEXT, PAD, IM_START, IM_END, *(f"<|reserved_{i}|>" for i in range(12)))

# The pattern is exactly the split pattern of Qwen2, because llama.cpp identifies a pre-tokenizer by its name (here
# "qwen2") and does not load models with unknown pre-tokenizers.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

VOCAB_MULTIPLE = 64  # If the vocabulary size is not a multiple of 64, matrix multiplications are slower on all devices.
MIN_VOCAB_SIZE = math.ceil((256 + len(SPECIAL_TOKENS)) / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
MAX_DERIVED_VOCAB_SIZE = 65_536  # largest vocabulary size whose ids fit into uint16

_REFERENCE_BYTES = 40_000_000
_REFERENCE_VOCAB = 8_192


def embedding_rows(vocab_size: int, rows: int) -> int:
    """Return the number of rows of token embeddings, which is rounded up to a multiple of `VOCAB_MULTIPLE` if it grows.

    Args:
        vocab_size: Number of tokens of the tokenizer.
        rows: Number of existing rows, which is kept if it is sufficient.
    """
    return rows if vocab_size <= rows else math.ceil(vocab_size / VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def vocab_size_for(corpus_bytes: int) -> int:
    """Return a suitable vocabulary size for a corpus, proportional to the square root of the corpus size.

    A larger vocabulary gives shorter sequences, but each token then occurs less often in the corpus. The number of
    distinct words in a text of n words is approximately proportional to the square root of n (Heaps' law).

    Args:
        corpus_bytes: Size of the training set in UTF-8 bytes.

    Returns:
        The vocabulary size, including special tokens, which is a multiple of 64. For example, the vocabulary size is
        8,192 for a corpus of 40 MB, and 65,536 for a corpus of 2.6 GB or more.
    """
    size = _REFERENCE_VOCAB * math.sqrt(corpus_bytes / _REFERENCE_BYTES)
    rounded = round(size / VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return min(max(rounded, MIN_VOCAB_SIZE), MAX_DERIVED_VOCAB_SIZE)


def _byte_alphabet() -> dict[str, int]:
    # The byte alphabet of GPT-2: a byte that is a printable Latin-1 character is represented by this character, and any
    # other byte is represented by a character from U+0100. As a result, the tokens in `tokenizer.json` do not contain
    # spaces or control characters.
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(moved)}


BYTE_OF = _byte_alphabet()  # dictionary from each character of the byte alphabet to its byte
