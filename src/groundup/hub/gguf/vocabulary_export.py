"""Conversion of a tokenizer.json to the vocabulary of a GGUF file, so that llama.cpp returns the same token ids.

llama.cpp supports only a fixed list of pre-tokenizers, and no normalizers. The export chooses the pre-tokenizer that
splits the edge cases of a test set in the same way as tokenizer.json. After the conversion, the edge cases are
tokenized with tokenizer.json and with the rules of llama.cpp. Texts with different token ids are reported.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from groundup.core.errors import FormatError
from groundup.hub.gguf.pretokenizers import PRE_TOKENIZERS, PreTokenizer, patterns_of, pre_tokenize, pre_tokenizer_json
from groundup.hub.gguf.vocabulary import Kind, TokenType, Vocabulary
from groundup.hub.gguf.vocabulary_import import SPACE, to_tokenizer_json
from groundup.tokenizer.definition import components_of
from groundup.tokenizer.edge_cases import EDGE_CASES

_CONFIG_NAMES = {"bos": "bos_token", "eos": "eos_token", "unk": "unk_token", "pad": "pad_token"}
_MAX_LISTED = 8  # Maximum number of edge cases that an error message lists.


@dataclass(frozen=True, slots=True)
class GgufVocabulary:
    """A tokenizer that was converted for a GGUF file.

    Attributes:
        metadata: the keys `tokenizer.*` and their values.
        pre: name of the pre-tokenizer; "default" for SentencePiece, which does not have a pre-tokenizer.
        differences: edge cases that llama.cpp tokenizes differently, as pairs of name and text.
    """

    metadata: dict[str, Any]
    pre: str
    differences: tuple[tuple[str, str], ...]


def tokenizer_to_gguf(
    definition: Mapping[str, Any],
    config: Mapping[str, Any],
    vocab_size: int,
    *,
    stop_ids: Sequence[int] = (),
    chat_template: str | None = None,
    pre: str | None = None,
) -> GgufVocabulary:
    """Convert a tokenizer to the metadata of a GGUF file.

    Args:
        definition: content of tokenizer.json.
        config: content of tokenizer_config.json.
        vocab_size: number of rows of the model's embedding. Ids that do not have a token are marked as unused.
        stop_ids: ids of the tokens that end generation. All except EOS become the end-of-turn and end-of-message token.
        chat_template: chat template of the model. Default: the chat template in `config`.
        pre: name of the llama.cpp pre-tokenizer. If given, it is used even if it splits some texts differently.

    Returns:
        The metadata and the differences.

    Raises:
        FormatError: llama.cpp does not support the tokenizer or its pre-tokenizer, or the tokenizer has more tokens
            than the embedding has rows.
    """
    backend = _backend(definition)
    definition = json.loads(backend.to_str())
    kind = _kind(definition)
    name = "default" if kind != "gpt2" else pre or _pre_tokenizer_name(definition)
    tokens, types = _tokens(backend, definition, vocab_size, kind)
    ids = {
        key: found
        for key, written in _CONFIG_NAMES.items()
        if (found := backend.token_to_id(_content(config.get(written)) or "")) is not None
    }
    others = [token_id for token_id in stop_ids if token_id != ids.get("eos")]
    ids |= dict(zip(("eot", "eom") if "eos" in ids else ("eos", "eot", "eom"), others, strict=False))
    if (unknown := _unknown_id(definition)) is not None:
        ids["unk"] = unknown
        types[unknown] = TokenType.UNKNOWN
    model = definition["model"]
    before, after = _added_special_tokens(backend, definition, config, ids)
    vocabulary = Vocabulary(
        kind=kind,
        pre=name,
        tokens=tokens,
        types=types,
        scores=_scores(model, tokens, kind),
        merges=[(left, right) for left, right in model["merges"]] if kind == "gpt2" else (),
        ids=ids,
        add_bos=before,
        add_eos=after,
        add_space_prefix=_prefixes_space(definition) if kind != "gpt2" else False,
        remove_extra_whitespaces=_merges_spaces(definition),
        charsmap=_charsmap(definition),
        chat_templates=_chat_templates(config, chat_template),
    )
    metadata = vocabulary.to_metadata()
    return GgufVocabulary(metadata, name, _differences(backend, Vocabulary.from_metadata(metadata)))


def _backend(definition: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(definition))
    except Exception as error:  # tokenizers raises `Exception` itself, not a subclass.
        raise FormatError(
            f"tokenizer.json: {error}",
            rule="must be a file of the Hugging Face tokenizers library",
            fix="Download it again.",
        ) from error


def _refused(value: str, rule: str) -> FormatError:
    fix = "Use the model directory with transformers or vLLM."
    return FormatError(f"tokenizer.json: {value}", rule=rule, fix=fix)


def _kind(definition: Mapping[str, Any]) -> Kind:
    model = definition["model"]
    normalizers = components_of(definition["normalizer"], "normalizers")
    if model["type"] == "BPE" and any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix")):
        raise _refused("BPE with a subword prefix or word suffix", "llama.cpp does not support prefixes and suffixes")
    if any(step["type"] == "ByteLevel" for step in components_of(definition["decoder"], "decoders")):
        if model["type"] == "BPE":
            # llama.cpp does not support NFC, the normalizer of Qwen. It is accepted, because most texts already are
            # NFC.
            if unknown := [step["type"] for step in normalizers if step["type"] != "NFC"]:
                raise _refused(f"the normalizer {unknown[0]}", "llama.cpp does not normalize text for byte-level BPE")
            return "gpt2"
    elif model["type"] in ("BPE", "Unigram"):
        known = {"Prepend", "Replace", "Precompiled", "Strip"} if model["type"] == "Unigram" else {"Prepend", "Replace"}
        if unknown := [step["type"] for step in normalizers if step["type"] not in known]:
            raise _refused(f"the normalizer {unknown[0]}", "llama.cpp does not support this normalizer")
        return "llama" if model["type"] == "BPE" else "t5"
    raise _refused(f"a {model['type']} tokenizer", "llama.cpp supports byte-level BPE and SentencePiece")


def _pre_tokenizer_name(definition: Mapping[str, Any]) -> str:
    ignore_merges = bool(definition["model"].get("ignore_merges"))
    candidates = {name: entry for name, entry in PRE_TOKENIZERS.items() if entry.ignore_merges == ignore_merges}
    differing = _differing_texts(definition, candidates)
    if all(differing.values()) and _merges_reach_all_tokens(definition):  # ignore_merges has no effect.
        differing = _differing_texts(definition, PRE_TOKENIZERS)
    best = min(differing, key=lambda name: len(differing[name]))
    if not differing[best]:
        return best
    raise FormatError(
        f"tokenizer.json: an unsupported pre-tokenizer; the most similar one in llama.cpp, {best!r}, differs in"
        f" {len(differing[best])} of {len(EDGE_CASES)} edge cases ({', '.join(differing[best][:_MAX_LISTED])})",
        rule="llama.cpp supports only a fixed list of pre-tokenizers",
        fix=f"Use transformers or vLLM, or accept the differences: tokenizer_to_gguf(..., pre={best!r}) in Python.",
    )


def _differing_texts(definition: Mapping[str, Any], candidates: Mapping[str, PreTokenizer]) -> dict[str, list[str]]:
    """Return the name of each candidate pre-tokenizer -> edge cases that it splits differently from tokenizer.json.

    If the regexes of a candidate are the same as in tokenizer.json, only this candidate is returned.
    """
    own, patterns = definition["pre_tokenizer"], patterns_of(definition["pre_tokenizer"])
    for name, entry in candidates.items():
        if patterns in (entry.patterns, entry.in_llama_cpp):
            return {name: []}
    if own is None:
        return {name: list(EDGE_CASES) for name in candidates}
    definitions = {name: pre_tokenizer_json(entry.in_llama_cpp) for name, entry in candidates.items()}
    return {
        name: [
            title for title, text in EDGE_CASES.items() if pre_tokenize(own, text) != pre_tokenize(definition_, text)
        ]
        for name, definition_ in definitions.items()
    }


def _merges_reach_all_tokens(definition: Mapping[str, Any]) -> bool:
    """Return whether every token of the vocabulary can be produced with merges. `ignore_merges` then has no effect."""
    model = definition["model"]
    backend = tokenizers.Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "model": model | {"ignore_merges": False}})
    )
    added = {token["content"] for token in definition["added_tokens"]}
    words = [token for token in model["vocab"] if token not in added]
    return all(len(encoding.ids) == 1 for encoding in backend.encode_batch(words, add_special_tokens=False))


def _tokens(
    backend: tokenizers.Tokenizer, definition: Mapping[str, Any], vocab_size: int, kind: Kind
) -> tuple[list[str], Any]:
    numbers = backend.get_vocab(with_added_tokens=True)
    named = {number: token for token, number in numbers.items()}
    if max(named, default=0) >= vocab_size:
        raise FormatError(
            f"tokenizer.json: the token {named[max(named)]!r} has the id {max(named):,}",
            rule=f"the model's embedding has only {vocab_size:,} rows",
            fix="Use the tokenizer that the model was trained with.",
        )
    types = np.full(vocab_size, TokenType.UNUSED, dtype=np.int32)
    types[list(named)] = TokenType.NORMAL
    if definition["model"].get("byte_fallback"):
        types[[number for number, token in named.items() if _is_byte(token)]] = TokenType.BYTE
    for token in definition["added_tokens"]:
        number = numbers[token["content"]]
        types[number] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        if kind != "gpt2" and not token["special"]:
            # llama.cpp searches a text for these tokens before it replaces spaces by ▁.
            named[number] = token["content"].replace(SPACE, " ")
    taken = set(named.values())
    tokens = []
    for number in range(vocab_size):
        token = named.get(number, f"[PAD{number}]")
        while number not in named and token in taken:
            token = f"[{token}]"
        tokens.append(token)
    return tokens, types


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _unknown_id(definition: Mapping[str, Any]) -> int | None:
    model = definition["model"]
    if model["type"] == "Unigram":
        unknown: int | None = model.get("unk_id")
        return unknown
    found: int | None = model["vocab"].get(model.get("unk_token"))
    return found


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, Mapping) else token  # Older files contain an object per token.
    return content if isinstance(content, str) else None


def _scores(model: Mapping[str, Any], tokens: Sequence[str], kind: Kind) -> Any:
    if kind == "gpt2":
        return np.zeros(0, dtype=np.float32)
    scores = np.zeros(len(tokens), dtype=np.float32)
    if kind == "t5":
        scores[: len(model["vocab"])] = [score for _, score in model["vocab"]]
        return scores
    # The priority of a token is the index of the first merge that produces the token.
    made = {token: place for place, token in enumerate(dict.fromkeys(left + right for left, right in model["merges"]))}
    return -np.array([made.get(token, len(made)) for token in tokens], dtype=np.float32)


def _prefixes_space(definition: Mapping[str, Any]) -> bool:
    steps = components_of(definition["normalizer"], "normalizers") + components_of(
        definition["pre_tokenizer"], "pretokenizers"
    )
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _merges_spaces(definition: Mapping[str, Any]) -> bool:
    steps = components_of(definition["normalizer"], "normalizers")
    return any(step["type"] == "Replace" and step["pattern"] == {"Regex": " {2,}"} for step in steps)


def _charsmap(definition: Mapping[str, Any]) -> bytes:
    steps = components_of(definition["normalizer"], "normalizers")
    found = (step["precompiled_charsmap"] for step in steps if step["type"] == "Precompiled")
    return base64.b64decode(next(found, ""))


def _added_special_tokens(
    backend: tokenizers.Tokenizer, definition: Mapping[str, Any], config: Mapping[str, Any], ids: Mapping[str, int]
) -> tuple[bool, bool]:
    """Return whether BOS is added before a text, and whether EOS is added after a text.

    The post-processor of the tokenizer determines this. If it does not add special tokens, the config determines it.
    """
    if not any(
        step["type"] == "TemplateProcessing" for step in components_of(definition["post_processor"], "processors")
    ):
        return bool(config.get("add_bos_token")) and "bos" in ids, bool(config.get("add_eos_token")) and "eos" in ids
    with_special = backend.encode("a").ids
    text = backend.encode("a", add_special_tokens=False).ids
    extra = len(with_special) - len(text)
    before = extra > 0 and with_special[0] == ids.get("bos") and with_special[:-extra] != text
    return before, extra > before and with_special[-1] == ids.get("eos")


def _chat_templates(config: Mapping[str, Any], chat_template: str | None) -> dict[str, str]:
    found = chat_template if chat_template is not None else config.get("chat_template")
    if isinstance(found, str):
        return {"default": found}
    if isinstance(found, list):
        return {str(entry["name"]): str(entry["template"]) for entry in found}
    return dict(found) if isinstance(found, Mapping) else {}


def _differences(backend: tokenizers.Tokenizer, vocabulary: Vocabulary) -> tuple[tuple[str, str], ...]:
    llama_cpp = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(vocabulary, as_llama_cpp=True)))
    for each in (backend, llama_cpp):
        each.encode_special_tokens = True  # Special tokens in a text are tokenized like other text.
        each.no_padding()
        each.no_truncation()
    texts = list(EDGE_CASES.values())
    own_ids, their_ids = (
        [e.ids for e in each.encode_batch(texts, add_special_tokens=False)] for each in (backend, llama_cpp)
    )
    return tuple(pair for pair, own, their in zip(EDGE_CASES.items(), own_ids, their_ids, strict=True) if own != their)
