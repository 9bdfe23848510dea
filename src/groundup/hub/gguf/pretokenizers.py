"""The pre-tokenizers of llama.cpp, with their names in GGUF files (`tokenizer.ggml.pre`).

A pre-tokenizer is a list of regexes. The first regex splits the text at its matches, the second regex splits the
resulting pieces, and so on. Each regex corresponds to a `Split` step with behavior "Isolated" in Hugging Face's
tokenizers. Several names may have the same list of regexes.

llama.cpp uses std::regex, which supports neither `(?i:...)` nor Unicode letter categories. llama.cpp therefore rewrites
some regexes, and splits some texts differently from the original tokenizers. For these pre-tokenizers, `patterns`
contains the original regexes, and `run_as` the regexes of llama.cpp. Two small differences are ignored. `(?i:'s)`
matches U+017F (the long s) in the original tokenizers, but not in llama.cpp. Some characters of recent Unicode versions
are classified differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import tokenizers

from groundup.core.config import nearest
from groundup.core.errors import FormatError
from groundup.tokenizer.definition import components_of


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """A pre-tokenizer for byte-level BPE.

    Attributes:
        patterns: regexes of the original tokenizer.
        run_as: regexes of llama.cpp; empty if they split texts in the same way as `patterns`.
        ignore_merges: whether a piece that is in the vocabulary becomes one token without applying merges.
        adds_bos: whether BOS is added before a text if the GGUF file does not specify it.
    """

    patterns: tuple[str, ...]
    run_as: tuple[str, ...] = ()
    ignore_merges: bool = False
    adds_bos: bool = False

    @property
    def in_llama_cpp(self) -> tuple[str, ...]:
        """The regexes with which llama.cpp splits texts."""
        return self.run_as or self.patterns


# The regex of the `ByteLevel` step with use_regex=True in Hugging Face's tokenizers.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|`]+"  # The characters at which the `Punctuation` step splits.

_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_REST_AND_SLASH = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"

# These regexes split a word before an upper-case letter that follows a lower-case letter.
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*")
_TEKKEN = f"{_CASED[0]}|{_CASED[1]}|{_DIGIT}|{_REST_AND_SLASH}"
_GPT4O = rf"{_CASED[0]}{_SUFFIX}?|{_CASED[1]}{_SUFFIX}?|\p{{N}}{{1,3}}|{_REST_AND_SLASH}"


def _ascii_case(pattern: str) -> str:
    # llama.cpp treats each letter outside ASCII as both upper case and lower case.
    return pattern.replace(_UPPER, r"(?:(?=\p{L})[^a-z])").replace(_LOWER, r"(?:(?=\p{L})[^A-Z])")


_LLAMA3 = rf"{_SUFFIX}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_SUFFIX}|{_WORD}|{_DIGIT}|{_REST}"
_QWEN35 = rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|{_DIGIT}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
_HAN_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# The letters in DeepSeek LLM's regex: cased letters of Unicode 12, except lower-case Armenian and most Georgian
# letters.
_DEEPSEEK_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481"
    "\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
_DEEPSEEK_PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"


def _without_spaces(patterns: tuple[str, ...]) -> PreTokenizer:
    # In llama.cpp, these character ranges do not contain white space.
    ranges = {
        _CJK: rf"(?:(?!\s){_CJK[:-1]})+",
        _DEEPSEEK_PUNCTUATION: _DEEPSEEK_PUNCTUATION.replace("\u3000", "\u3001"),
    }
    return PreTokenizer(patterns, tuple(ranges.get(pattern, pattern) for pattern in patterns))


_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"

# For each pre-tokenizer, this is its most common name, which an export writes. `OTHER_NAMES` contains the other names.
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": PreTokenizer((GPT2_PATTERN,)),
    "llama-bpe": PreTokenizer((_LLAMA3,), ignore_merges=True, adds_bos=True),
    "dbrx": PreTokenizer((_LLAMA3,)),
    "qwen2": PreTokenizer((_QWEN2,)),
    "qwen35": PreTokenizer((_QWEN35,)),
    "smollm": PreTokenizer((_DIGIT, GPT2_PATTERN)),
    "gpt-4o": PreTokenizer((_GPT4O,), (_ascii_case(_GPT4O),)),
    "tekken": PreTokenizer((_TEKKEN,), (_ascii_case(_TEKKEN),), ignore_merges=True, adds_bos=True),
    "glm4": PreTokenizer((_LLAMA3,), ignore_merges=True),
    "deepseek-v3": PreTokenizer((r"\p{N}{1,3}", _HAN_KANA, _DEEPSEEK3)),
    "deepseek-coder": _without_spaces((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, _DIGIT)),
    "deepseek-llm": _without_spaces(
        (r"[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", _DEEPSEEK_PUNCTUATION, r"\s+$", _CJK, r"\p{N}+"),
    ),
    "falcon": PreTokenizer((_PUNCTUATION, GPT2_PATTERN, "[0-9][0-9][0-9]")),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", rf"{_SUFFIX}|{_WORD}|\p{{N}}+|{_REST}"), ignore_merges=True),
    "seed-coder": PreTokenizer(
        (rf"{_SUFFIX}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",),
    ),
    "bailingmoe": PreTokenizer(
        (rf"'(?i:[sdmt]|ll|ve|re)|{_WORD}|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",),
    ),
    "bloom": PreTokenizer((_BLOOM,)),
    "viking": PreTokenizer((_BLOOM, _DIGIT)),
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]")),
}

OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "gpt-2": (
        *("phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "mellum", "a.x-4.0"),
        *("modern-bert", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe"),
    ),
    "llama-bpe": (
        *("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
    ),
    "dbrx": ("smaug-bpe", "chatglm-bpe"),
    "glm4": ("glm5",),
    "qwen2": (
        *("stablelm2", "hunyuan", "solar-open", "grok-2", "megrez", "deepseek-r1-qwen", "kormo", "f2llmv2"),
    ),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
    "gpt-4o": ("llama4", "kanana2", "talkie", "minimax-m2"),
    "deepseek-v3": ("hunyuan-dense", "joyai-llm", "hy_v4"),
    "bailingmoe": ("bailingmoe2", "llada-moe"),
    "bloom": ("poro-chat", "gpt3-finnish"),
}  # fmt: skip
_NAMED = PRE_TOKENIZERS | {other: PRE_TOKENIZERS[name] for name, others in OTHER_NAMES.items() for other in others}


def pre_tokenizer(name: str) -> PreTokenizer:
    """Return the pre-tokenizer that has the given name or alias.

    Raises:
        FormatError: the name is unknown.
    """
    if name in _NAMED:
        return _NAMED[name]
    match = nearest(name, _NAMED)
    raise FormatError(
        f"tokenizer.ggml.pre = {name[:60]!r}",
        rule=f"supported pre-tokenizers are {', '.join(PRE_TOKENIZERS)}, and their aliases",
        fix=f"Did you mean {match}?" if match else "Convert the model from its Hugging Face directory.",
    )


def pre_tokenizer_json(patterns: Sequence[str]) -> dict[str, Any]:
    """Return a byte-level `pre_tokenizer` for tokenizer.json that splits texts with the given regexes."""
    own_regex = patterns[-1:] == (GPT2_PATTERN,)
    steps = [_step(pattern) for pattern in (patterns[:-1] if own_regex else patterns)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": own_regex}
    return {"type": "Sequence", "pretokenizers": [*steps, byte_level]} if steps else byte_level


def _step(pattern: str) -> dict[str, Any]:
    if pattern == _DIGIT:  # The original tokenizers also use a `Digits` step.
        return {"type": "Digits", "individual_digits": True}
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def patterns_of(definition: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """Return the regexes of a byte-level `pre_tokenizer` of a tokenizer.json; None if it has steps of other types."""
    steps = components_of(definition, "pretokenizers")
    if not steps or steps[-1].get("type") != "ByteLevel":
        return None
    patterns: list[str] = []
    for step in steps:
        match step:
            case {"type": "ByteLevel", "add_prefix_space": False}:
                patterns += [GPT2_PATTERN] * step.get("use_regex", True)
            case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False}:
                patterns.append(pattern)
            # This step keeps only the matches. The result is the same for regexes that match every character.
            case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Removed", "invert": True}:
                patterns.append(pattern)
            case {"type": "Digits"}:
                patterns.append(_DIGIT if step.get("individual_digits") else _DIGIT + "+")
            case {"type": "Punctuation", "behavior": "Contiguous"}:
                patterns.append(_PUNCTUATION)
            case _:
                return None
    # A regex may contain newline characters that are not escaped.
    return tuple(pattern.replace("\r", r"\r").replace("\n", r"\n") for pattern in patterns)


def pre_tokenize(pre_tokenizer_json: Mapping[str, Any], text: str) -> list[str]:
    """Split a text into pieces. In each piece, every byte is represented by one character, as in byte-level BPE."""
    return [piece for piece, _ in _splitter(json.dumps(pre_tokenizer_json)).pre_tokenize_str(text)]


@cache
def _splitter(pre_tokenizer_json: str) -> tokenizers.pre_tokenizers.PreTokenizer:
    model = '{"type": "BPE", "vocab": {}, "merges": []}'
    backend = tokenizers.Tokenizer.from_str(f'{{"model": {model}, "pre_tokenizer": {pre_tokenizer_json}}}')
    return backend.pre_tokenizer
