"""Reading, validation and writing of the vocabulary in the metadata of a GGUF file (the keys `tokenizer.*`).

The keys are documented in ggml's `docs/gguf.md` and in the source code of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import FormatError

# Tokenizer types: "gpt2" is byte-level BPE, "llama" is SentencePiece's BPE model, "t5" is SentencePiece's unigram
# model.
Kind = Literal["gpt2", "llama", "t5"]

# The largest published vocabularies have about 262,000 tokens, 600,000 merges and two million characters.
_MAX_TOKENS = 1_000_000
MAX_MERGES = 4_000_000
_MAX_CHARACTERS = 64_000_000


class TokenType(IntEnum):
    """Type of a token; the same values as llama.cpp's `llama_token_type`."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_NAMED_IDS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
}
_CHAT_TEMPLATE = "tokenizer.chat_template"
_CHAT_TEMPLATE_NAMES = "tokenizer.chat_templates"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as a GGUF file describes it.

    Attributes:
        kind: tokenizer type in llama.cpp ("tokenizer.ggml.model").
        pre: name of the pre-tokenizer of byte-level BPE (see `pretokenizers`); None if the file does not specify it.
        tokens: text of each token, sorted by token id.
        types: `TokenType` of each token, as an int32 array.
        scores: score of each token, as a float32 array; empty for byte-level BPE.
        merges: pairs of tokens that BPE merges, sorted by priority; empty for SentencePiece.
        ids: ids of special tokens, with the keys "bos", "eos", "eot", "eom", "unk" and "pad".
        add_bos: whether BOS is added before a text; None if the file does not specify it.
        add_eos: whether EOS is added after a text; None if the file does not specify it.
        add_space_prefix: whether a space is added before a text (only SentencePiece).
        remove_extra_whitespaces: whether repeated spaces are replaced by one space (only unigram models).
        charsmap: compiled normalization rules of SentencePiece (only unigram models).
        chat_templates: name -> Jinja chat template. The template "default" is used for chats.
    """

    kind: Kind
    pre: str | None
    tokens: Sequence[str]
    types: NDArray[np.int32]
    scores: NDArray[np.float32]
    merges: Sequence[tuple[str, str]]
    ids: Mapping[str, int] = field(default_factory=dict)
    add_bos: bool | None = None
    add_eos: bool | None = None
    add_space_prefix: bool | None = None
    remove_extra_whitespaces: bool = False
    charsmap: bytes = b""
    chat_templates: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Vocabulary:
        """Read the `tokenizer.*` keys of a GGUF file's metadata.

        Args:
            metadata: metadata of the file.

        Returns:
            The vocabulary.

        Raises:
            FormatError: the vocabulary is missing, its lists have different lengths, ids, types or merges are invalid,
                sizes are implausible, or the tokenizer type is unknown.
        """
        kind = _get(metadata, "tokenizer.ggml.model", str, None)
        if kind not in get_args(Kind):
            raise FormatError(
                f"tokenizer.ggml.model = {kind!r}",
                rule=f"supported tokenizer types are {', '.join(get_args(Kind))} (byte-level BPE, SentencePiece)",
                fix="Import the model from its Hugging Face directory.",
            )
        tokens = _tokens(metadata)
        size = len(tokens)
        types = _numbers(metadata, "tokenizer.ggml.token_type", size, np.int32, fill=int(TokenType.NORMAL))
        if size and not (types.min() >= min(TokenType) and types.max() <= max(TokenType)):
            raise _damaged(
                f"token types from {types.min()} to {types.max()}",
                f"types are {min(TokenType):d} to {max(TokenType):d}",
            )
        scored = kind != "gpt2"
        scores = _numbers(metadata, "tokenizer.ggml.scores", size, np.float32, fill=0.0) if scored else _NO_SCORES
        if not np.isfinite(scores).all():
            raise _damaged("some scores are not finite", "scores must be finite")
        return cls(
            kind=kind,
            pre=_get(metadata, "tokenizer.ggml.pre", str, None),
            tokens=tokens,
            types=types,
            scores=scores,
            merges=_merges(metadata, tokens) if kind == "gpt2" else (),
            ids=_ids(metadata, size),
            add_bos=_get(metadata, "tokenizer.ggml.add_bos_token", bool, None),
            add_eos=_get(metadata, "tokenizer.ggml.add_eos_token", bool, None),
            add_space_prefix=_get(metadata, "tokenizer.ggml.add_space_prefix", bool, None),
            remove_extra_whitespaces=_get(metadata, "tokenizer.ggml.remove_extra_whitespaces", bool, False),
            charsmap=_charsmap(metadata),
            chat_templates=_chat_templates(metadata),
        )

    def to_metadata(self) -> dict[str, Any]:
        """Return the metadata of a GGUF file, with the data types that llama.cpp requires for arrays."""
        metadata: dict[str, Any] = {
            "tokenizer.ggml.model": self.kind,
            "tokenizer.ggml.pre": self.pre or "default",
            "tokenizer.ggml.tokens": list(self.tokens),
            "tokenizer.ggml.token_type": self.types.astype(np.int32),
        }
        if len(self.scores):
            metadata["tokenizer.ggml.scores"] = self.scores.astype(np.float32)
        if self.merges:
            metadata["tokenizer.ggml.merges"] = [f"{left} {right}" for left, right in self.merges]
        metadata |= {key: self.ids[name] for name, key in _NAMED_IDS.items() if name in self.ids}
        flags = {
            "add_bos_token": self.add_bos,
            "add_eos_token": self.add_eos,
            "add_space_prefix": self.add_space_prefix,
        }
        metadata |= {f"tokenizer.ggml.{name}": flag for name, flag in flags.items() if flag is not None}
        if self.kind == "t5":
            metadata["tokenizer.ggml.remove_extra_whitespaces"] = self.remove_extra_whitespaces
        if self.charsmap:
            metadata["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(self.charsmap, dtype=np.uint8)
        others = {name: text for name, text in self.chat_templates.items() if name != _DEFAULT}
        if others:
            metadata[_CHAT_TEMPLATE_NAMES] = list(others)
            metadata |= {f"{_CHAT_TEMPLATE}.{name}": text for name, text in others.items()}
        if _DEFAULT in self.chat_templates:
            metadata[_CHAT_TEMPLATE] = self.chat_templates[_DEFAULT]
        return metadata


_DEFAULT = "default"
_NO_SCORES = np.zeros(0, dtype=np.float32)


def _damaged(value: str, rule: str) -> FormatError:
    return FormatError(f"vocabulary of a GGUF file: {value}", rule=rule, fix="The file is damaged: download it again.")


def _get(metadata: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = metadata.get(key, default)
    if value is default or isinstance(value, kind):
        return value
    raise _damaged(f"{key} is of type {type(value).__name__}", f"must be {kind.__name__}")


def _list(metadata: Mapping[str, Any], key: str, max_entries: int) -> Sequence[str]:
    values: Sequence[str] = metadata.get(key, ())
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise _damaged(f"{key} is of type {type(values).__name__}", "must be a list of texts")
    if len(values) > max_entries:
        raise _damaged(f"{key} has {len(values):,} entries", f"the maximum is {max_entries:,}")
    characters = 0
    for text in values:
        if not isinstance(text, str):
            raise _damaged(f"{key} contains a {type(text).__name__}", "must be a list of texts")
        characters += len(text)
    if characters > _MAX_CHARACTERS:
        raise _damaged(f"{key} has {characters:,} characters", f"the maximum is {_MAX_CHARACTERS:,}")
    return values


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    # llama.cpp also replaces empty tokens by unique names, because tokens must be unique.
    given = _list(metadata, "tokenizer.ggml.tokens", _MAX_TOKENS)
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(given)]
    if not tokens:
        raise _damaged("no tokens", "tokenizer.ggml.tokens must contain the tokens")
    if len(set(tokens)) != len(tokens):
        seen: set[str] = set()
        duplicate = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise _damaged(f"the token {duplicate[:60]!r} occurs twice", "tokens must be unique")
    for token in tokens:
        if not token.isascii():
            _require_utf8(token)
    return tokens


def _require_utf8(token: str) -> None:
    try:
        token.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _damaged(f"the token {token[:60]!r}", "tokens must be valid UTF-8") from error


def _numbers(metadata: Mapping[str, Any], key: str, size: int, dtype: type, fill: float) -> NDArray[Any]:
    values = metadata.get(key)
    if values is None:
        return np.full(size, fill, dtype=dtype)
    try:
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype.kind not in "iuf":
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise _damaged(f"{key} is not a list of numbers", "must contain one number per token") from error
    if len(array) != size:
        raise _damaged(f"{key} has {len(array):,} entries", f"it must have one entry for each of the {size:,} tokens")
    if dtype is np.int32 and (array.dtype.kind == "f" or (size and abs(array.astype(np.float64)).max() >= 2**31)):
        raise _damaged(f"{key} contains {array.dtype.name} numbers", "must contain 32-bit integers")
    return array.astype(dtype)


def _merges(metadata: Mapping[str, Any], tokens: Sequence[str]) -> list[tuple[str, str]]:
    known = set(tokens)
    merges = []
    for line in _list(metadata, "tokenizer.ggml.merges", MAX_MERGES):
        # Search from the second character, as llama.cpp does: the first token may begin with a space.
        middle = line.find(" ", 1)
        left, right = line[:middle], line[middle + 1 :]
        if middle < 0 or left not in known or right not in known or left + right not in known:
            raise _damaged(
                f"the merge {line[:60]!r}", "a merge must consist of two tokens whose concatenation is a token"
            )
        merges.append((left, right))
    return merges


def _ids(metadata: Mapping[str, Any], size: int) -> dict[str, int]:
    ids = {}
    for name, key in _NAMED_IDS.items():
        value = metadata.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < size:
            raise _damaged(f"{key} = {value!r}", f"ids must be from 0 to {size - 1:,}")
        ids[name] = int(value)
    return ids


def _charsmap(metadata: Mapping[str, Any]) -> bytes:
    key = "tokenizer.ggml.precompiled_charsmap"
    array = np.asarray(metadata.get(key, ()))
    if array.size == 0:
        return b""
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.dtype.itemsize != 1:
        raise _damaged(f"{key} contains {array.dtype.name} numbers", "must contain bytes")
    data = array.astype(np.uint8).tobytes()
    if not _is_charsmap(data):
        raise _damaged(f"{key} of {len(data):,} bytes", "must be a valid trie, followed by the replacement texts")
    return data


def _is_charsmap(data: bytes) -> bool:
    """Return whether a compiled normalization is valid.

    In a valid normalization, every node of the trie refers only to nodes inside the trie, and every value is the start
    of a replacement text. The libraries that apply the normalization do not check whether the trie is valid.

    The trie has the format of Darts-clone, in which a node is a 32-bit integer. Bit 31 is set if the node is a value.
    Bit 8 is set if the node has a child that is a value. Bits 9 to 30 encode the offset of the 256 children.
    """
    size = int.from_bytes(data[:4], "little")
    if size % 4 or not 0 < size < len(data) - 4 or data[-1] != 0:
        return False
    nodes = np.frombuffer(data, "<u4", count=size // 4, offset=4).astype(np.int64)
    texts = data[4 + size :]
    try:
        texts.decode("utf-8")
    except UnicodeDecodeError:
        return False
    inner = nodes >> 31 == 0
    children = np.arange(len(nodes)) ^ ((nodes >> 10) << ((nodes & 1 << 9) >> 6))
    if ((children | 255) >= len(nodes))[inner].any():
        return False
    values = nodes[children[inner & (nodes >> 8 & 1 == 1)]] & 0x7FFFFFFF
    begins = np.concatenate([[True], np.frombuffer(texts, np.uint8)[:-1] == 0])
    return bool((values < len(texts)).all() and begins[values].all())


def _chat_templates(metadata: Mapping[str, Any]) -> dict[str, str]:
    keys = {_DEFAULT: _CHAT_TEMPLATE}
    keys |= {name: f"{_CHAT_TEMPLATE}.{name}" for name in _list(metadata, _CHAT_TEMPLATE_NAMES, 100)}
    templates = {name: _get(metadata, key, str, None) for name, key in keys.items()}
    return {name: template for name, template in templates.items() if template is not None}
