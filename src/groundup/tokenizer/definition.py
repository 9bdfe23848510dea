"""`tokenizer.json` taken apart: what each token stands for, and a tokenizer that text cannot talk to.

The format is that of Hugging Face's tokenizers library. Two kinds of vocabulary are read: byte-level (GPT-2, Llama 3,
Qwen), and SentencePiece's (Llama 2, Mistral, Gemma: BPE with byte fallback; T5, XLM-R: Unigram; Kudo and Richardson
2018), in which "▁" stands for a space and "<0x0A>" for a byte.
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

LARGEST_FILE = 100_000_000  # bytes; the largest in use have a third of it
LARGEST_ID = 4_000_000  # rows of an embedding; a file of a few bytes could else ask for a table of terabytes
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def build(definition: Definition | str, name: str) -> tokenizers.Tokenizer:
    """The library's tokenizer, of the contents of a `tokenizer.json`.

    Raises:
        FormatError: the library cannot make one of it.
    """
    text = definition if isinstance(definition, str) else json.dumps(definition)
    try:
        # The library makes a table as long as the largest id: it must not see one that no model has.
        largest = _largest_id(json.loads(text))
        if largest > LARGEST_ID:
            raise ValueError(f"a vocabulary with ids up to {largest:,}")
        return tokenizers.Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises Exception itself; where it panics, not even that
        raise _damaged(name, str(error)[:300]) from None


def _largest_id(found: Any) -> int:
    model = found.get("model") if isinstance(found, dict) else None
    entries = model.get("vocab") if isinstance(model, dict) else None
    added = found.get("added_tokens") if isinstance(found, dict) else None
    ids = [*(entries.values() if isinstance(entries, dict) else ())]
    ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return max((number for number in ids if isinstance(number, int)), default=0)


def vocabulary(definition: Definition) -> dict[str, int]:
    """Every token with its id, added ones included.

    Raises:
        FormatError: there are none.
    """
    entries = definition["model"]["vocab"]
    found = entries if isinstance(entries, dict) else {piece: number for number, (piece, _) in enumerate(entries)}
    found = found | {token["content"]: token["id"] for token in definition["added_tokens"]}
    if not entries:
        raise _damaged("tokenizer.json", "a vocabulary without a token")
    return found


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens become bytes.

    Attributes:
        byte_level: each character stands for a byte; `BYTE_OF` says which.
        byte_pieces: "<0x0A>" stands for that byte.
        replaced: what is written for what else, usually (("▁", " "),).
        drops_space: one space at the beginning of a text is not part of it: encoding put it there.
    """

    byte_level: bool = False
    byte_pieces: bool = False
    replaced: tuple[tuple[str, str], ...] = ()
    drops_space: bool = False

    def bytes_of(self, piece: str) -> bytes:
        """What a token of the vocabulary stands for."""
        if self.byte_level:
            # As the library: what is not made of the alphabet is text.
            return bytes(BYTE_OF[c] for c in piece) if all(c in BYTE_OF for c in piece) else piece.encode()
        if self.byte_pieces and (byte := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return self.text_of(piece).encode()

    def text_of(self, piece: str) -> str:
        """A piece that stands for text, as that text."""
        for written, meant in self.replaced:
            piece = piece.replace(written, meant)
        return piece


def decoding(definition: Definition) -> Decoding:
    """How this tokenizer's tokens become bytes.

    Raises:
        FormatError: in a way that is not known here.
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
            case {"type": "Replace", "pattern": {"String": str(written)}, "content": str(meant)}:
                found["replaced"] += ((written, meant),)
            case {"type": "Metaspace", "replacement": str(written)}:
                scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
                found["replaced"] += ((written, " "),)
                found["drops_space"] = scheme != "never"
            case {"type": "Strip", "content": " ", "start": int(start), "stop": 0} if fused and start <= 1:
                found["drops_space"] = start == 1
            case _:
                raise _unknown(f"a {model['type']} tokenizer with the decoder {json.dumps(part)[:120]}")
    if model["type"] not in ("BPE", "Unigram") or not (found.get("byte_level") or found["replaced"]):
        raise _unknown(f"a {model['type']} tokenizer with {len(entries):,} entries")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _unknown("a BPE tokenizer that marks the middles or ends of words")
    return Decoding(**found)


def around_texts(definition: Definition) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The ids that the post-processor puts before a text and behind it; None: it is not said there."""
    for part in components_of(definition["post_processor"], "processors"):
        match part:
            case {"type": "TemplateProcessing", "single": list(single), "special_tokens": dict(known)}:
                sides: tuple[list[int], list[int]] = ([], [])
                behind = False
                for piece in single:
                    match piece:
                        case {"SpecialToken": {"id": str(name)}}:
                            sides[behind].extend(known.get(name, {}).get("ids", []))
                        case _:
                            behind = True
                return tuple(sides[False]), tuple(sides[True])
    return None


def with_around(definition: Definition, before: Sequence[int], behind: Sequence[int]) -> Definition:
    """The same tokenizer, whose post-processor puts these ids before a text and behind it."""
    others = [s for s in components_of(definition["post_processor"], "processors") if s["type"] != "TemplateProcessing"]
    name_of = {number: name for name, number in vocabulary(definition).items()}
    pieces = {name: list(ids) for name, ids in (("before", before), ("behind", behind)) if ids}

    def around(text: str, part: int) -> list[dict[str, Any]]:
        known = {name: {"SpecialToken": {"id": name, "type_id": part}} for name in pieces}
        sides = (known.get("before"), {"Sequence": {"id": text, "type_id": part}}, known.get("behind"))
        return [side for side in sides if side is not None]

    template = {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {
            name: {"id": name, "ids": ids, "tokens": [name_of[i] for i in ids]} for name, ids in pieces.items()
        },
    }
    return definition | {"post_processor": {"type": "Sequence", "processors": [*others, template]}}


def guarded(definition: Definition, markers: Mapping[str, int]) -> tuple[Definition, dict[str, str]]:
    """A tokenizer with the same ids, in which text cannot become one of the `markers` (names with their ids).

    They are known to it by names that nobody can guess, and so can be put into text on purpose: everything that the
    library does around a special token, it does around these.

    Returns:
        It, and the secret name of each marker.
    """
    secret = secrets.token_hex(16)  # plain ASCII: no normalizer has anything to change in it
    names = {marker: f"<{secret}-{number}>" for number, marker in enumerate(markers)}
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
    unlisted = [{"id": markers[name], "content": name} | flags for name in markers if name not in known]
    added = [
        token | {"content": names.get(token["content"], token["content"])}
        for token in (*definition["added_tokens"], *unlisted)
    ]
    silent = {"post_processor": None, "truncation": None, "padding": None}
    return definition | silent | {"model": model, "added_tokens": added}, names


def continuing(definition: Definition) -> Definition:
    """The same tokenizer, for text that goes on: without the space that it puts before a text."""

    def without(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        for key in ("normalizers", "pretokenizers"):
            if key in part:
                kept = [without(inner) for inner in part[key] if inner.get("type") != "Prepend"]
                part = part | {key: kept}
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
    """The steps of a normalizer, decoder, ...: of a sequence, each; of one step, that one."""
    if component is None:
        return []
    if component["type"] == "Sequence":
        return [step for part in component[key] for step in components_of(part, key)]
    return [component]


def _damaged(name: str, found: str) -> FormatError:
    return FormatError(
        f"{name}: {found}",
        rule="this file must be a tokenizer of the Hugging Face tokenizers library",
        fix="Copy it again from where it came, or run groundup tokenize again.",
    )


def _unknown(found: str) -> FormatError:
    return FormatError(
        found,
        rule="groundup reads byte-level BPE, and SentencePiece's BPE and Unigram vocabularies",
        fix="Train one with groundup tokenize, or take one of the GPT-2, Llama, Mistral, Gemma or Qwen kind.",
    )
