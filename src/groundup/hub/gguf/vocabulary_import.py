"""The vocabulary of a GGUF file as a tokenizer.json, with the ids that llama.cpp gives.

llama.cpp's "llama" tokenizer joins, again and again, the two neighbours whose union has the highest score. That is BPE
whose merges are all ways of putting a token together from two, in the order of the scores; a token that text must not
become (BOS and the like) is none of them, which SentencePiece sees so, too, and llama.cpp does not.
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
from groundup.hub.gguf.vocabulary import MOST_MERGES, TokenType, Vocabulary
from groundup.tokenizer.source import CONFIG_FILE, TOKENIZER_FILE

SPACE = "\u2581"  # ▁, which stands for a space in SentencePiece's vocabularies
# Bounds the work of taking tokens apart: a token of n characters has n - 1 ways.
_LONGEST_PIECE = 256
_NEVER = 1e3  # nats below the least likely piece

_NEVER_IN_TEXT = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
_STOPS = ("eos", "eot", "eom")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A tokenizer as Hugging Face's libraries read it.

    Attributes:
        definition: the content of tokenizer.json.
        config: the content of tokenizer_config.json, the chat template in it.
        bos_id, eos_id, pad_id: None where the file names none.
        stop_ids: what ends an answer: end of text, end of turn, end of message.
        notes: what a user may want to know, as sentences.
    """

    definition: dict[str, Any]
    config: dict[str, Any]
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    stop_ids: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def save(self, directory: Path) -> None:
        """Write both files."""
        write_json(directory / CONFIG_FILE, self.config)
        write_json(directory / TOKENIZER_FILE, self.definition)


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> TokenizerFiles:
    """Rebuild the tokenizer of a GGUF file.

    Args:
        metadata: of the file, with the full names of the keys; arrays as lists or numpy arrays.

    Returns:
        the files. Tokens that only fill up the embedding at its end are left out.

    Raises:
        FormatError: no vocabulary there, a damaged one, or one of a kind that is not known.
    """
    vocabulary = Vocabulary.from_metadata(metadata)
    notes: tuple[str, ...] = ()
    if vocabulary.kind == "gpt2" and vocabulary.pre is None:
        notes = ("The file does not say how text is cut before merging; like llama.cpp, groundup takes its default.",)
    elif vocabulary.kind == "gpt2" and pre_tokenizer(vocabulary.pre or "").run_as:
        notes = (
            f"llama.cpp cuts words of letters beyond ASCII a little unlike the tokenizer that its {vocabulary.pre!r}"
            " stands for; groundup cuts as the makers of that tokenizer do.",
        )
    definition = rebuild(vocabulary)
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


def rebuild(vocabulary: Vocabulary, *, as_llama_cpp: bool = False) -> dict[str, Any]:
    """The content of a tokenizer.json.

    Args:
        as_llama_cpp: cut text as llama.cpp does, also where that is not what the tokenizer's makers do.

    Raises:
        FormatError: a pre-tokenizer that is not known, or a vocabulary that tokenizers refuses.
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
        definition["model"] = _bpe(vocabulary) | {"ignore_merges": pre.whole_words, "merges": merges}
    else:
        said = vocabulary.add_space_prefix
        prefixed = vocabulary.kind == "llama" if said is None else said
        definition["normalizer"] = _space_normalizer(vocabulary, prefixed)
        definition["decoder"] = _space_decoder(prefixed)
        definition["model"] = _unigram(vocabulary, as_llama_cpp) if vocabulary.kind == "t5" else _scored_bpe(vocabulary)
    try:
        tokenizers.Tokenizer.from_str(json.dumps(definition))
    except Exception as error:  # the library raises Exception itself
        raise FormatError(
            f"the vocabulary of a GGUF file: {error}",
            rule="it must make a tokenizer",
            fix="The file is damaged; get it again.",
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
    """How many tokens there are, without those that fill up the end of the embedding."""
    used = (vocabulary.types != TokenType.UNUSED).nonzero()[0]
    named = max(vocabulary.ids.values(), default=-1)
    return max(int(used[-1]) if len(used) else -1, named) + 1


def _added_ids(vocabulary: Vocabulary) -> list[int]:
    """What is no piece of text: control tokens and the like, and a named token that text cannot become anyway."""
    added = {int(index) for kind in _NEVER_IN_TEXT for index in (vocabulary.types == kind).nonzero()[0]}
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
    # Added tokens at the end are no part of the model, as in the files of Llama 3 and Qwen: where whole words are taken
    # as they are, no word can be one of them. tokenizers numbers them on from the end.
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
    merges = list(itertools.islice(_unions_by_score(vocabulary), MOST_MERGES + 1))
    if len(merges) > MOST_MERGES:
        raise FormatError(
            f"the vocabulary of a GGUF file: more than {MOST_MERGES:,} ways of joining tokens",
            rule="no vocabulary has so many",
            fix="The file is damaged; get it again.",
        )
    return merges


def _unions_by_score(vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    joined = {
        token: -float(score)
        for token, kind, score in zip(vocabulary.tokens, vocabulary.types, vocabulary.scores, strict=True)
        if kind in (TokenType.NORMAL, TokenType.UNDEFINED)
    }
    for token in sorted((token for token in joined if len(token) > 1), key=joined.__getitem__):
        if len(token) > _LONGEST_PIECE:
            continue  # text can still not become it by chance: llama.cpp would have to come by all its parts
        for middle in range(1, len(token)):
            if token[:middle] in joined and token[middle:] in joined:
                yield token[:middle], token[middle:]


def _unigram(vocabulary: Vocabulary, as_llama_cpp: bool) -> dict[str, Any]:
    scores = vocabulary.scores.astype(np.float64)[: _size(vocabulary)]
    # tokenizers looks for every piece in text. One that must not be found there gets a score that never wins.
    pieces = np.isin(vocabulary.types[: len(scores)], [TokenType.NORMAL, TokenType.UNDEFINED, TokenType.USER_DEFINED])
    scores[~pieces] = scores[pieces].min(initial=0.0) - _NEVER
    return {
        "type": "Unigram",
        "unk_id": vocabulary.ids.get("unk"),
        "vocab": [[token, score] for token, score in zip(vocabulary.tokens, scores.tolist(), strict=False)],
        # llama.cpp has no bytes for what these vocabularies lack, but only the token for the unknown.
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
