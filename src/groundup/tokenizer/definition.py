"""Functions that read and change the contents of `tokenizer.json`, which is called the definition of a tokenizer.

The file has the format of Hugging Face's tokenizers library. The supported models are byte-level BPE (GPT-2, Llama 3,
Qwen) and SentencePiece (Kudo and Richardson 2018). SentencePiece models use BPE with byte fallback (Llama 2, Mistral,
Gemma) or Unigram (T5, XLM-R). In SentencePiece vocabularies, "▁" represents a space, and "<0x0A>" represents a byte.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

from groundup.core.errors import FormatError
from groundup.tokenizer.vocabulary import BYTE_OF

Definition = dict[str, Any]

MAX_FILE_BYTES = 100_000_000  # three times the size of the largest known tokenizer file
MAX_TOKEN_ID = 4_000_000  # A damaged file with a very large id would make the library allocate terabytes.
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def build(definition: Definition | str, name: str) -> tokenizers.Tokenizer:
    """Create a tokenizer of Hugging Face's tokenizers library.

    Args:
        definition: Contents of a `tokenizer.json`.
        name: File name to show in error messages.

    Raises:
        FormatError: The definition is invalid.
    """
    text = definition if isinstance(definition, str) else json.dumps(definition)
    try:
        # The library allocates a table whose size is the largest id, so the largest id is checked first.
        largest = _largest_id(json.loads(text))
        if largest > MAX_TOKEN_ID:
            raise ValueError(f"a vocabulary with ids up to {largest:,}")
        return tokenizers.Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust panics in the library are not instances of Exception.
        raise _damaged(name, str(error)[:300]) from None


def _largest_id(found: Any) -> int:
    model = found.get("model") if isinstance(found, dict) else None
    entries = model.get("vocab") if isinstance(model, dict) else None
    added = found.get("added_tokens") if isinstance(found, dict) else None
    ids = [*(entries.values() if isinstance(entries, dict) else ())]
    ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return max((number for number in ids if isinstance(number, int)), default=0)


def vocabulary(definition: Definition) -> dict[str, int]:
    """Return a dictionary from each token to its id, including added tokens.

    Args:
        definition: Contents of a `tokenizer.json`.

    Raises:
        FormatError: The vocabulary is empty.
    """
    entries = definition["model"]["vocab"]
    found = entries if isinstance(entries, dict) else {piece: number for number, (piece, _) in enumerate(entries)}
    found = found | {token["content"]: token["id"] for token in definition["added_tokens"]}
    if not entries:
        raise _damaged("tokenizer.json", "empty vocabulary")
    return found


@dataclass(frozen=True, slots=True)
class Decoding:
    """The rules for the conversion of tokens to bytes.

    Attributes:
        byte_level: Whether each character of a token represents a byte, as defined by `BYTE_OF`.
        byte_pieces: Whether a token such as "<0x0A>" represents a byte.
        replaced: Pairs of a string in a token and its replacement, usually (("▁", " "),).
        strips_leading_space: Whether a leading space of a text is removed, because encoding adds it.
    """

    byte_level: bool = False
    byte_pieces: bool = False
    replaced: tuple[tuple[str, str], ...] = ()
    strips_leading_space: bool = False

    def bytes_of(self, piece: str) -> bytes:
        """Return the bytes of a token."""
        if self.byte_level:
            # As in the tokenizers library, a token that contains any character outside the byte alphabet is text.
            return bytes(BYTE_OF[c] for c in piece) if all(c in BYTE_OF for c in piece) else piece.encode()
        if self.byte_pieces and (byte := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return self.text_of(piece).encode()

    def text_of(self, piece: str) -> str:
        """Return the text of a token that does not represent a single byte."""
        for old, new in self.replaced:
            piece = piece.replace(old, new)
        return piece


def decoding(definition: Definition) -> Decoding:
    """Return the rules for the conversion of tokens to bytes that the decoder in `tokenizer.json` defines.

    Args:
        definition: Contents of a `tokenizer.json`.

    Raises:
        FormatError: This kind of tokenizer is not supported.
    """
    model, entries = definition["model"], definition["model"]["vocab"]
    found: dict[str, Any] = {"replaced": ()}
    fused = False
    for part in components_of(definition["decoder"], "decoders"):
        match part:
            case {"type": "ByteLevel"}:
                found["byte_level"] = True
            case {"type": "ByteFallback"}:
                found["byte_pieces"] = True
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
                found["replaced"] += ((old, new),)
            case {"type": "Metaspace", "replacement": str(space)}:
                scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
                found["replaced"] += ((space, " "),)
                found["strips_leading_space"] = scheme != "never"
            case {"type": "Strip", "content": " ", "start": int(start), "stop": 0} if fused and start <= 1:
                found["strips_leading_space"] = start == 1
            case _:
                raise _unsupported(f"a {model['type']} tokenizer with the decoder {json.dumps(part)[:120]}")
    if model["type"] not in ("BPE", "Unigram") or not (found.get("byte_level") or found["replaced"]):
        raise _unsupported(f"a {model['type']} tokenizer with {len(entries):,} entries")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _unsupported("a BPE tokenizer with continuing_subword_prefix or end_of_word_suffix")
    return Decoding(**found)


def read_affixes(definition: Definition) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the ids that the post-processor adds before and after a text.

    If the post-processor does not contain a TemplateProcessing step, None is returned.
    """
    for part in components_of(definition["post_processor"], "processors"):
        match part:
            case {"type": "TemplateProcessing", "single": list(single), "special_tokens": dict(known)}:
                affixes: tuple[list[int], list[int]] = ([], [])
                after = False
                for piece in single:
                    match piece:
                        case {"SpecialToken": {"id": str(name)}}:
                            affixes[after].extend(known.get(name, {}).get("ids", []))
                        case _:
                            after = True
                return tuple(affixes[False]), tuple(affixes[True])
    return None


def with_affixes(definition: Definition, before: Sequence[int], after: Sequence[int]) -> Definition:
    """Return a definition whose post-processor adds the given ids before and after a text.

    Args:
        definition: Contents of a `tokenizer.json`.
        before: Ids to add before the text.
        after: Ids to add after the text.
    """
    others = [s for s in components_of(definition["post_processor"], "processors") if s["type"] != "TemplateProcessing"]
    name_of = {number: name for name, number in vocabulary(definition).items()}
    pieces = {name: list(ids) for name, ids in (("before", before), ("after", after)) if ids}

    def affixes(text: str, part: int) -> list[dict[str, Any]]:
        known = {name: {"SpecialToken": {"id": name, "type_id": part}} for name in pieces}
        pattern = (known.get("before"), {"Sequence": {"id": text, "type_id": part}}, known.get("after"))
        return [step for step in pattern if step is not None]

    template = {
        "type": "TemplateProcessing",
        "single": affixes("A", 0),
        "pair": [*affixes("A", 0), *affixes("B", 1)],
        "special_tokens": {
            name: {"id": name, "ids": ids, "tokens": [name_of[i] for i in ids]} for name, ids in pieces.items()
        },
    }
    return definition | {"post_processor": {"type": "Sequence", "processors": [*others, template]}}


def with_protected_tokens(
    definition: Definition, control_tokens: Mapping[str, int]
) -> tuple[Definition, dict[str, str]]:
    """Return a definition with the same ids in which text cannot become a control token.

    Control tokens get random replacement names. To encode a control token, use its replacement name in the text. The
    tokenizers library treats this name as a special token.

    Args:
        definition: Contents of a `tokenizer.json`.
        control_tokens: Dictionary from each control token to its id.

    Returns:
        The new definition, and a dictionary from each control token to its replacement name.
    """
    random = secrets.token_hex(16)  # ASCII characters, because normalizers do not change them
    names = {token: f"<{random}-{number}>" for number, token in enumerate(control_tokens)}
    model = dict(definition["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if left not in names and right not in names and left + right not in names
        ]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    known = {token["content"] for token in definition["added_tokens"]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    unlisted = [{"id": control_tokens[name], "content": name} | flags for name in control_tokens if name not in known]
    added = [
        token | {"content": names.get(token["content"], token["content"])}
        for token in (*definition["added_tokens"], *unlisted)
    ]
    removed = {"post_processor": None, "truncation": None, "padding": None}
    return definition | removed | {"model": model, "added_tokens": added}, names


def without_prefix_space(definition: Definition) -> Definition:
    """Return a definition that does not add a space before a text, for text that continues other text."""

    def without(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        for key in ("normalizers", "pretokenizers"):
            if key in part:
                part = part | {key: [without(inner) for inner in part[key] if inner.get("type") != "Prepend"]}
        changes: dict[str, Any] = {}
        if part.get("add_prefix_space"):
            changes["add_prefix_space"] = False
        if part.get("type") == "Metaspace":
            changes["prepend_scheme"] = "never"
        return part | changes

    normalizer = definition["normalizer"]
    alone = isinstance(normalizer, dict) and normalizer.get("type") == "Prepend"
    return definition | {
        "normalizer": None if alone else without(normalizer),
        "pre_tokenizer": without(definition["pre_tokenizer"]),
    }


def components_of(component: Any, key: str) -> list[dict[str, Any]]:
    """Return the steps of a normalizer, a decoder or another component. Nested sequences are flattened.

    Args:
        component: The component as in `tokenizer.json`, or None.
        key: Key of the list of steps in a component of type "Sequence", such as "decoders".
    """
    if component is None:
        return []
    if component["type"] == "Sequence":
        return [step for part in component[key] for step in components_of(part, key)]
    return [component]


def _damaged(name: str, found: str) -> FormatError:
    return FormatError(
        f"{name}: {found}",
        rule="it must be a valid file of Hugging Face's tokenizers library",
        fix="Copy it again from its source, or run groundup tokenize again.",
    )


def _unsupported(found: str) -> FormatError:
    return FormatError(
        found,
        rule="only byte-level BPE tokenizers and SentencePiece tokenizers (BPE and Unigram) are supported",
        fix="Train a tokenizer with groundup tokenize, or use the tokenizer of a GPT-2, Llama, Mistral, Gemma or Qwen "
        "model.",
    )
