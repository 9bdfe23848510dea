"""Conversion of the vocabulary of a GGUF file to a tokenizer.json that returns the same token ids as llama.cpp.

llama.cpp's "llama" tokenizer repeatedly merges the two adjacent pieces whose concatenation has the highest score. This
is equivalent to BPE with the following merges: every way to split a token into two other tokens, sorted by the score of
the token. Special tokens such as BOS do not get merges, so that text cannot produce them. This is the behavior of
SentencePiece; llama.cpp does not have this restriction.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from groundup.core.errors import FormatError
from groundup.core.files import write_json
from groundup.hub.gguf.pretokenizers import PreTokenizer, pre_tokenizer, pre_tokenizer_json
from groundup.hub.gguf.vocabulary import MAX_MERGES, TokenType, Vocabulary
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.definition import build
from groundup.tokenizer.source import CONFIG_FILE, TOKENIZER_FILE, TokenizerSource

SPACE = "\u2581"  # SentencePiece replaces each space by this character.
# Merges are only computed for tokens up to this length. A token with n characters can be split in n - 1 ways.
_MAX_PIECE_CHARACTERS = 256
_UNUSED_MARGIN = 1e3  # Unused tokens get a score that is lower than the minimum of all other scores by this margin.

_SPECIAL_TYPES = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
_STOPS = ("eos", "eot", "eom")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A tokenizer in Hugging Face's format.

    Attributes:
        definition: content of tokenizer.json.
        config: content of tokenizer_config.json, with the chat template.
        bos_id: id of the BOS token; None if the file does not specify it.
        eos_id: id of the EOS token; None if the file does not specify it.
        pad_id: id of the padding token; None if the file does not specify it.
        stop_ids: ids of the tokens that end generation: end of text, end of turn, and end of message.
        notes: notes about the conversion for the user.
    """

    definition: dict[str, Any]
    config: dict[str, Any]
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    stop_ids: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def to_tokenizer(self) -> Tokenizer:
        """Return the tokenizer."""
        ids = {"bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id}
        listed = {role: tuple(each for each in (number,) if each is not None) for role, number in ids.items()}
        listed["eos"] = self.stop_ids or listed["eos"]
        source = TokenizerSource(config=self.config, ids=listed)
        return Tokenizer(build(self.definition, TOKENIZER_FILE), self.config, source)

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json to a directory."""
        write_json(directory / CONFIG_FILE, self.config)
        write_json(directory / TOKENIZER_FILE, self.definition)


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> TokenizerFiles:
    """Convert the tokenizer of a GGUF file to Hugging Face's format.

    Args:
        metadata: metadata of the file, including the keys `tokenizer.*`. Arrays are lists or numpy arrays.

    Returns:
        The content of the tokenizer files. Unused tokens at the end of the vocabulary are omitted, because they only
        pad the embedding.

    Raises:
        FormatError: the vocabulary is missing, damaged or unsupported.
    """
    vocabulary = Vocabulary.from_metadata(metadata)
    notes: tuple[str, ...] = ()
    if vocabulary.kind == "gpt2" and vocabulary.pre is None:
        notes = ("The file does not specify a pre-tokenizer. Like llama.cpp, groundup uses the default pre-tokenizer.",)
    elif vocabulary.kind == "gpt2" and pre_tokenizer(vocabulary.pre or "").run_as:
        notes = (
            f"llama.cpp splits words with non-ASCII letters slightly differently from the original {vocabulary.pre!r}"
            " tokenizer. groundup splits words like the original tokenizer.",
        )
    definition = to_tokenizer_json(vocabulary)
    ids = vocabulary.ids
    names = {"bos": "bos_token", "eos": "eos_token", "pad": "pad_token", "unk": "unk_token"}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= {key: vocabulary.tokens[ids[name]] for name, key in names.items() if name in ids}
    config |= {
        "add_bos_token": _adds_bos(vocabulary),
        "add_eos_token": _adds_eos(vocabulary),
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    templates = vocabulary.chat_templates
    if set(templates) == {"default"}:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    return TokenizerFiles(
        definition,
        config,
        bos_id=ids.get("bos"),
        eos_id=ids.get("eos"),
        pad_id=ids.get("pad"),
        stop_ids=tuple(dict.fromkeys(ids[name] for name in _STOPS if name in ids)),
        notes=notes,
    )


def to_tokenizer_json(vocabulary: Vocabulary, *, as_llama_cpp: bool = False) -> dict[str, Any]:
    """Return the content of a tokenizer.json.

    Args:
        vocabulary: vocabulary of the GGUF file.
        as_llama_cpp: whether to tokenize exactly like llama.cpp, even if the original tokenizer splits text
            differently.

    Returns:
        The content of tokenizer.json.

    Raises:
        FormatError: the pre-tokenizer is unknown, or the tokenizers library rejects the vocabulary.
    """
    definition: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": _post_processor(vocabulary),
        "decoder": None,
        "model": None,
    }
    if vocabulary.kind == "gpt2":
        pre = _pre_tokenizer(vocabulary)
        definition["pre_tokenizer"] = pre_tokenizer_json(pre.in_llama_cpp if as_llama_cpp else pre.patterns)
        definition["decoder"] = {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
        }  # fmt: skip
        merges = [list(merge) for merge in vocabulary.merges]
        definition["model"] = _bpe(vocabulary) | {"ignore_merges": pre.ignore_merges, "merges": merges}
    else:
        add_prefix = vocabulary.add_space_prefix
        prefixed = vocabulary.kind == "llama" if add_prefix is None else add_prefix
        definition["normalizer"] = _space_normalizer(vocabulary, prefixed)
        definition["decoder"] = _space_decoder(prefixed)
        definition["model"] = _unigram(vocabulary, as_llama_cpp) if vocabulary.kind == "t5" else _scored_bpe(vocabulary)
    try:
        tokenizers.Tokenizer.from_str(json.dumps(definition))
    except Exception as error:  # tokenizers raises `Exception` itself, not a subclass.
        raise FormatError(
            f"vocabulary of a GGUF file: {error}",
            rule="the tokenizers library must accept the vocabulary",
            fix="The file is damaged: download it again.",
        ) from error
    return definition


def _pre_tokenizer(vocabulary: Vocabulary) -> PreTokenizer:
    return pre_tokenizer("default" if vocabulary.pre is None else vocabulary.pre)


def _adds_bos(vocabulary: Vocabulary) -> bool:
    if vocabulary.add_bos is not None:
        return vocabulary.add_bos
    return vocabulary.kind == "llama" or (vocabulary.kind == "gpt2" and _pre_tokenizer(vocabulary).adds_bos)


def _adds_eos(vocabulary: Vocabulary) -> bool:
    return vocabulary.kind == "t5" if vocabulary.add_eos is None else vocabulary.add_eos


def _size(vocabulary: Vocabulary) -> int:
    """Return the number of tokens, excluding unused tokens at the end, which only pad the embedding."""
    used = (vocabulary.types != TokenType.UNUSED).nonzero()[0]
    named = max(vocabulary.ids.values(), default=-1)
    return max(int(used[-1]) if len(used) else -1, named) + 1


def _added_ids(vocabulary: Vocabulary) -> list[int]:
    """Return the ids that tokenizer.json lists as added tokens.

    These are the ids of control, unknown and user-defined tokens, and of tokens such as BOS that merges cannot produce.
    """
    added = {int(index) for kind in _SPECIAL_TYPES for index in (vocabulary.types == kind).nonzero()[0]}
    made = {left + right for left, right in vocabulary.merges}
    added |= {
        token_id
        for name, token_id in vocabulary.ids.items()
        if len(vocabulary.tokens[token_id]) > 1 and vocabulary.tokens[token_id] not in made
        if vocabulary.kind == "gpt2" or name == "unk"
    }
    return sorted(added)


def _added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    return [
        {
            "id": token_id,
            "content": vocabulary.tokens[token_id],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": bool(vocabulary.types[token_id] != TokenType.USER_DEFINED),
        }
        for token_id in _added_ids(vocabulary)
    ]


def _vocab(vocabulary: Vocabulary) -> dict[str, int]:
    # Added tokens at the end of the vocabulary are omitted, as in the files of Llama 3 and Qwen. Otherwise, a word of a
    # text could become an added token if ignore_merges is set. tokenizers assigns the ids after the vocabulary to them.
    size, added = _size(vocabulary), set(_added_ids(vocabulary)) - {vocabulary.ids.get("unk", -1)}
    while size - 1 in added:
        size -= 1
    return {token: token_id for token_id, token in enumerate(vocabulary.tokens[:size])}


def _bpe(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": _vocab(vocabulary),
        "merges": [],
    }


def _scored_bpe(vocabulary: Vocabulary) -> dict[str, Any]:
    unknown = vocabulary.ids.get("unk")
    return _bpe(vocabulary) | {
        "unk_token": None if unknown is None else vocabulary.tokens[unknown],
        "fuse_unk": True,
        "byte_fallback": bool((vocabulary.types == TokenType.BYTE).any()),
        "merges": [list(merge) for merge in _merges_by_score(vocabulary)],
    }


def _merges_by_score(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    merges = list(itertools.islice(_unions_by_score(vocabulary), MAX_MERGES + 1))
    if len(merges) > MAX_MERGES:
        raise FormatError(
            f"vocabulary of a GGUF file: more than {MAX_MERGES:,} merges",
            fix="The file is damaged: download it again.",
        )
    return merges


def _unions_by_score(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    joined = {
        token: -float(score)
        for token, kind, score in zip(vocabulary.tokens, vocabulary.types, vocabulary.scores, strict=True)
        if kind in (TokenType.NORMAL, TokenType.UNDEFINED)
    }
    for token in sorted((token for token in joined if len(token) > 1), key=joined.__getitem__):
        if len(token) > _MAX_PIECE_CHARACTERS:
            continue  # In practice, a text does not contain such a long token.
        for middle in range(1, len(token)):
            if token[:middle] in joined and token[middle:] in joined:
                yield token[:middle], token[middle:]


def _unigram(vocabulary: Vocabulary, as_llama_cpp: bool) -> dict[str, Any]:
    scores = vocabulary.scores.astype(np.float64)[: _size(vocabulary)]
    # tokenizers may use every piece of the vocabulary. Pieces that must not be used get a very low score.
    pieces = np.isin(vocabulary.types[: len(scores)], [TokenType.NORMAL, TokenType.UNDEFINED, TokenType.USER_DEFINED])
    scores[~pieces] = scores[pieces].min(initial=0.0) - _UNUSED_MARGIN
    return {
        "type": "Unigram",
        "unk_id": vocabulary.ids.get("unk"),
        "vocab": [[token, score] for token, score in zip(vocabulary.tokens, scores.tolist(), strict=False)],
        # For unigram vocabularies, llama.cpp does not support byte fallback, and uses the unknown token instead.
        "byte_fallback": not as_llama_cpp and bool((vocabulary.types == TokenType.BYTE).any()),
    }


def _space_normalizer(vocabulary: Vocabulary, prefixed: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if vocabulary.charsmap:
        encoded = base64.b64encode(vocabulary.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": encoded})
    if vocabulary.remove_extra_whitespaces:
        steps.append({"type": "Strip", "strip_left": True, "strip_right": True})
        steps.append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    if prefixed:
        steps.append({"type": "Prepend", "prepend": SPACE})
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})
    return {"type": "Sequence", "normalizers": steps}


def _space_decoder(prefixed: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefixed:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _post_processor(vocabulary: Vocabulary) -> dict[str, Any] | None:
    before = vocabulary.ids.get("bos") if _adds_bos(vocabulary) else None
    after = vocabulary.ids.get("eos") if _adds_eos(vocabulary) else None
    if before is None and after is None:
        return None

    def special(token_id: int | None, part: int) -> list[dict[str, Any]]:
        return [] if token_id is None else [{"SpecialToken": {"id": vocabulary.tokens[token_id], "type_id": part}}]

    def text(name: str, part: int) -> list[dict[str, Any]]:
        return [*special(before, part), {"Sequence": {"id": name, "type_id": part}}, *special(after, part)]

    used = [token_id for token_id in dict.fromkeys((before, after)) if token_id is not None]
    return {
        "type": "TemplateProcessing",
        "single": text("A", 0),
        "pair": [*text("A", 0), *text("B", 1)],
        "special_tokens": {
            vocabulary.tokens[i]: {"id": vocabulary.tokens[i], "ids": [i], "tokens": [vocabulary.tokens[i]]}
            for i in used
        },
    }
