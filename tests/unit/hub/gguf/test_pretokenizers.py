"""The pre-tokenizer name must match the tokenizer: a wrong name gives wrong ids in llama.cpp."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from external_tokenizers import MAKERS, QWEN_SPLIT
from groundup.core.errors import FormatError
from groundup.hub.gguf import tokenizer_from_gguf, tokenizer_to_gguf
from groundup.tokenizer import Tokenizer

SPECIAL = {"bos_token": None, "eos_token": "<|end|>"}


def trained(steps: Sequence[pre_tokenizers.PreTokenizer], texts: Sequence[str], **model: Any) -> dict[str, Any]:
    backend = tokenizers.Tokenizer(models.BPE(**model))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(list(steps)), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(["<|end|>"])
    return dict(json.loads(backend.to_str()))


def split(pattern: str, behavior: str = "isolated", invert: bool = False) -> list[pre_tokenizers.PreTokenizer]:
    return [
        pre_tokenizers.Split(Regex(pattern), behavior, invert),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
KNOWN = {
    "groundup's": (split(QWEN_SPLIT), "qwen2"),
    "what does not match is dropped": (split(QWEN_SPLIT, "removed", invert=True), "qwen2"),
    # Other patterns with the same result are recognized by comparison.
    "other spelling": (split(QWEN_SPLIT.replace(r"|\p{N}|", r"|[\p{Nd}\p{Nl}\p{No}]|")), "qwen2"),
    "GPT-2": ([BYTES], "gpt-2"),
    "digits one by one": ([pre_tokenizers.Digits(True), BYTES], "smollm"),
}


@pytest.mark.parametrize(("steps", "name"), KNOWN.values(), ids=KNOWN)
def test_known_pre_tokenizers_are_found(
    steps: Sequence[pre_tokenizers.PreTokenizer], name: str, real_documents: list[str]
) -> None:
    made = tokenizer_to_gguf(trained(steps, real_documents[:6]), SPECIAL, 700)
    assert made.pre == made.metadata["tokenizer.ggml.pre"] == name
    assert made.differences == ()


UNKNOWN = {
    "pairs of digits": split(QWEN_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,2}|")),
    "a space is put before": [pre_tokenizers.ByteLevel(add_prefix_space=True)],
    "only white space": [
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ],
}


@pytest.mark.parametrize("steps", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_pre_tokenizers_are_rejected(
    steps: Sequence[pre_tokenizers.PreTokenizer], real_documents: list[str]
) -> None:
    """A name that almost fits silences "BPE pre-tokenizer was not recognized" but gives wrong ids."""
    with pytest.raises(FormatError, match=r"'.*', differs in \d+ of \d+"):
        tokenizer_to_gguf(trained(steps, real_documents[:6]), SPECIAL, 700)


def test_an_unknown_pre_tokenizer_can_be_forced(real_documents: list[str]) -> None:
    definition = trained(UNKNOWN["pairs of digits"], [real_documents[0], *map(str, range(100))] * 20)
    made = tokenizer_to_gguf(definition, SPECIAL, 700, pre="qwen2")
    assert made.pre == "qwen2"
    assert "digits" in dict(made.differences)
    assert "German" not in dict(made.differences)


def test_ignore_merges_is_accepted_if_it_has_no_effect(real_documents: list[str]) -> None:
    """The flag is often set without need, but a token that only the flag reaches is lost without it."""
    definition = trained(split(QWEN_SPLIT), real_documents[:6], ignore_merges=True)
    assert tokenizer_to_gguf(definition, SPECIAL, 700).pre == "qwen2"
    definition["model"]["vocab"]["Ġunreachable"] = max(definition["model"]["vocab"].values()) + 2
    with pytest.raises(FormatError, match="the most similar one"):
        tokenizer_to_gguf(definition, SPECIAL, 700)


@pytest.mark.parametrize(("maker", "name"), {"llama3": "llama-bpe", "qwen": "qwen2", "smollm2": "smollm"}.items())
def test_other_tokenizers_survive_a_round_trip(maker: str, name: str, real_documents: list[str]) -> None:
    backend, config = MAKERS[maker](real_documents[:6])
    made = tokenizer_to_gguf(json.loads(backend.to_str()), config, backend.get_vocab_size())
    assert made.pre == name
    back = tokenizer_from_gguf(made.metadata)
    again = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(back.definition)), back.config)
    # llama.cpp does not support Qwen's normalizer, so it is not in the file.
    texts = [text for text in real_documents[6:26] if text.isascii()]
    assert again.encode_batch(texts) == [backend.encode(t, add_special_tokens=False).ids for t in texts]
    original = Tokenizer(backend, config)
    assert (again.eos_id, again.pad_id, again.adds_bos) == (original.eos_id, original.pad_id, original.adds_bos)
    assert again.control_tokens == original.control_tokens
