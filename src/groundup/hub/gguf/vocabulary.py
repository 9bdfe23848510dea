"""The vocabulary that a GGUF file carries in its metadata, under `tokenizer.*`: read with suspicion, and written.

What the keys mean: ggml's `docs/gguf.md`, and what llama.cpp does with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import FormatError

Kind = Literal["gpt2", "llama", "t5"]  # byte-level BPE; SentencePiece's BPE; SentencePiece's unigrams

# The largest vocabularies have some 262,000 tokens, 600,000 merges and two million characters.
_MOST_TOKENS = 1_000_000
MOST_MERGES = 4_000_000
_MOST_CHARACTERS = 64_000_000


class TokenType(IntEnum):
    """What a token is for (llama.cpp's `llama_token_type`)."""

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
    """A tokenizer as llama.cpp knows it.

    Attributes:
        kind: which of llama.cpp's tokenizers reads it ("tokenizer.ggml.model").
        pre: how byte-level BPE cuts text (`pretokenizers`); None where the file does not say.
        tokens: the token of each id.
        types: int32, one for each token: a `TokenType`.
        scores: float32, one for each token; empty for byte-level BPE.
        merges: pairs of tokens, first come first merged; empty but for byte-level BPE.
        ids: which tokens begin and end texts and turns, stand for the unknown, fill up: by "bos", "eos", "eot", "eom",
            "unk", "pad".
        add_bos, add_eos: put around texts; None where the file does not say.
        add_space_prefix: a space is put before a text (SentencePiece).
        remove_extra_whitespaces: runs of spaces become one (unigrams).
        charsmap: SentencePiece's compiled normalization (unigrams).
        chat_templates: Jinja templates by name; the one that is used is "default".
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

        Raises:
            FormatError: no vocabulary; lists of unequal length; ids, types or merges that name nothing; sizes beyond
                reason; a kind of tokenizer that is not known.
        """
        kind = _get(metadata, "tokenizer.ggml.model", str, None)
        if kind not in get_args(Kind):
            raise FormatError(
                f"tokenizer.ggml.model = {kind!r}",
                rule=f"groundup reads the tokenizers {', '.join(get_args(Kind))} (byte-level BPE, SentencePiece)",
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
            raise _damaged("scores that are not finite", "a score is a number")
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
        """The keys and values for a GGUF file; arrays have the element types that llama.cpp insists on."""
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
    return FormatError(f"the vocabulary of a GGUF file: {value}", rule=rule, fix="The file is damaged; get it again.")


def _get(metadata: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = metadata.get(key, default)
    if value is default or isinstance(value, kind):
        return value
    raise _damaged(f"{key} is of type {type(value).__name__}", f"it must be of type {kind.__name__}")


def _list(metadata: Mapping[str, Any], key: str, most: int) -> Sequence[str]:
    values: Sequence[str] = metadata.get(key, ())
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise _damaged(f"{key} is of type {type(values).__name__}", "it must be a list of texts")
    if len(values) > most:
        raise _damaged(f"{key} has {len(values):,} entries", f"no vocabulary has more than {most:,}")
    characters = 0
    for text in values:
        if not isinstance(text, str):
            raise _damaged(f"{key} holds a {type(text).__name__}", "it must be a list of texts")
        characters += len(text)
    if characters > _MOST_CHARACTERS:
        raise _damaged(f"{key} has {characters:,} characters", f"no vocabulary has more than {_MOST_CHARACTERS:,}")
    return values


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    # An empty token has a name of its own in llama.cpp: no two tokens may be the same.
    given = _list(metadata, "tokenizer.ggml.tokens", _MOST_TOKENS)
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(given)]
    if not tokens:
        raise _damaged("no tokens", "tokenizer.ggml.tokens lists them")
    if len(set(tokens)) != len(tokens):
        seen: set[str] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise _damaged(f"the token {twice[:60]!r} twice", "each token has one id")
    for token in tokens:
        if not token.isascii():
            _require_utf8(token)
    return tokens


def _require_utf8(token: str) -> None:
    try:
        token.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _damaged(f"the token {token[:60]!r}", "tokens are UTF-8") from error


def _numbers(metadata: Mapping[str, Any], key: str, size: int, dtype: type, fill: float) -> NDArray[Any]:
    values = metadata.get(key)
    if values is None:
        return np.full(size, fill, dtype=dtype)
    try:
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype.kind not in "iuf":
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise _damaged(f"{key} is no list of numbers", "it holds one number for each token") from error
    if len(array) != size:
        raise _damaged(f"{key} has {len(array):,} entries", f"there are {size:,} tokens")
    if dtype is np.int32 and (array.dtype.kind == "f" or (size and abs(array.astype(np.float64)).max() >= 2**31)):
        raise _damaged(f"{key} holds {array.dtype.name} numbers", "it holds whole numbers of 32 bits")
    return array.astype(dtype)


def _merges(metadata: Mapping[str, Any], tokens: Sequence[str]) -> list[tuple[str, str]]:
    known = set(tokens)
    merges = []
    for line in _list(metadata, "tokenizer.ggml.merges", MOST_MERGES):
        # A token may begin with a space, as in llama.cpp; none of byte-level BPE does.
        middle = line.find(" ", 1)
        left, right = line[:middle], line[middle + 1 :]
        if middle < 0 or left not in known or right not in known or left + right not in known:
            raise _damaged(f"the merge {line[:60]!r}", "a merge names two tokens that together are a third")
        merges.append((left, right))
    return merges


def _ids(metadata: Mapping[str, Any], size: int) -> dict[str, int]:
    ids = {}
    for name, key in _NAMED_IDS.items():
        value = metadata.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < size:
            raise _damaged(f"{key} = {value!r}", f"ids are 0 to {size - 1:,}")
        ids[name] = int(value)
    return ids


def _charsmap(metadata: Mapping[str, Any]) -> bytes:
    key = "tokenizer.ggml.precompiled_charsmap"
    array = np.asarray(metadata.get(key, ()))
    if array.size == 0:
        return b""
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.dtype.itemsize != 1:
        raise _damaged(f"{key} holds {array.dtype.name} numbers", "it holds bytes")
    data = array.astype(np.uint8).tobytes()
    if not _is_charsmap(data):
        raise _damaged(f"{key} of {len(data):,} bytes", "it is a trie and the texts that it leads to")
    return data


def _is_charsmap(data: bytes) -> bool:
    """Whether no step in the trie leads out of it, and each of its values to the beginning of a text.

    The libraries that read it do not ask. It is Darts-clone's: a node is 32 bits, bit 31 for a value, bit 8 for a node
    that has one, bits 10 to 30 and 9 for the distance to its children, which are 256 places.
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
