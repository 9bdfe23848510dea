"""Fast encoding gives the same ids as the tokenizer, or is not used."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from groundup.tokenizer import CorpusEncoder, Tokenizer, train_tokenizer

SHARED = Path(__file__).parents[4] / "shared" / "data"


def assert_same_ids(tokenizer: Tokenizer, texts: list[str]) -> None:
    encoder = CorpusEncoder(tokenizer, texts[:20], threads=3)
    assert encoder.fast, encoder.reason
    fast = encoder.encode(texts)
    assert len(fast) == len(texts)
    for text, ids, expected in zip(texts, fast, tokenizer.encode_batch(texts), strict=True):
        assert ids.dtype == np.uint32
        assert ids.tolist() == expected, text[:80]


def test_same_ids_on_real_documents(tokenizer: Tokenizer, real_documents: list[str]) -> None:
    assert_same_ids(tokenizer, [line for text in real_documents[:40] for line in (text, *text.splitlines()[:30])])


def test_same_ids_in_three_languages() -> None:
    """tiktoken selects merges by the merged token, the library by the pair. Other languages reveal differences."""
    path = SHARED / "translation" / "multi30k_val.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} does not exist: it is not part of the project")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    sentences = [value for pair in pairs for value in pair.values() if isinstance(value, str)]
    english = train_tokenizer(sentences[::3], 2048, allow_smaller=True)
    assert_same_ids(english, sentences)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 50_000,
        "ab" * 30_000,
        " " * 1_100_000,
        "\n" * 50_000,
        "中文" * 20_000,
        "=" * 50_000,
        "a " * 30_000,
        "a " * 4_000 + " " * 1_100_000 + " a" * 4_000,
    ],
    ids=["letter", "pair", "spaces", "lines", "han", "signs", "words", "spaces between words"],
)
def test_very_long_runs(tokenizer: Tokenizer, text: str) -> None:
    """tiktoken's regex engine overflows its stack on a million spaces, with a panic."""
    [ids] = CorpusEncoder(tokenizer, []).encode([text])
    assert ids.tolist() == tokenizer.encode(text)


def test_special_tokens_and_surrogates_in_the_corpus(tokenizer: Tokenizer) -> None:
    """By default, tiktoken raises an error for text that looks like a special token."""
    texts = ["<|endoftext|><|im_start|>system", "a\ud800b", ""]
    encoder = CorpusEncoder(tokenizer, [])
    assert encoder.fast
    assert [ids.tolist() for ids in encoder.encode(texts)] == tokenizer.encode_batch(texts)


def make_tokenizer(pre_tokenizer: pre_tokenizers.PreTokenizer, documents: list[str]) -> Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(documents, trainer)
    return Tokenizer(backend, {"bos_token": "<s>", "eos_token": "<s>"})


def test_gpt2_split_is_fast(real_documents: list[str]) -> None:
    gpt2 = make_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False), real_documents[:20])
    assert_same_ids(gpt2, real_documents[:20])


def test_ignore_merges_is_fast(tokenizer: Tokenizer, real_documents: list[str]) -> None:
    """Llama 3 looks up complete words before merges (ignore_merges), like tiktoken."""
    definition = json.loads(json.dumps(tokenizer.definition))
    definition["model"]["ignore_merges"] = True
    llama = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(definition)), tokenizer.config)
    assert_same_ids(llama, real_documents[:20])


def test_unsupported_pre_tokenizers_are_not_fast(real_documents: list[str]) -> None:
    """SmolLM2 splits digits in a separate step. Ignoring it gave other ids in 16 of 47 texts."""
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    digits = make_tokenizer(pre_tokenizers.Sequence(parts), real_documents[:20])
    encoder = CorpusEncoder(digits, real_documents[:5])
    assert not encoder.fast
    assert "pre-tokenizer" in encoder.reason
    assert [ids.tolist() for ids in encoder.encode(["in 1984"])] == [digits.encode("in 1984")]


def test_different_ids_disable_fast_encoding(tokenizer: Tokenizer, real_documents: list[str]) -> None:
    """tiktoken assumes that merges are in the order of ids."""
    definition = json.loads(json.dumps(tokenizer.definition))
    definition["model"]["merges"].reverse()
    reordered = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(definition)), tokenizer.config)
    encoder = CorpusEncoder(reordered, real_documents[:3])
    assert not encoder.fast
    assert "differ" in encoder.reason
    assert encoder.encode(["the language"])[0].tolist() == reordered.encode("the language")
