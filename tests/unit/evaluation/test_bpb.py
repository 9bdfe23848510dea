"""Bits per byte: each token is scored once, and both scoring functions agree."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from groundup.core.errors import DataError, FormatError
from groundup.data import TokenLists
from groundup.evaluation.bpb import MIN_DOCUMENTS, bits_per_byte, encode_texts, logits_nll, model_nll
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

BOS, VOCAB = 0, 50


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> Transformer:
    return tiny_model(tokenizer.vocab_size, family="llama")


def token_costs(input_ids: Tensor) -> Tensor:
    """Return token costs of a closed-form bigram model: after token c, token t has the logit cos(c·t)."""
    t = torch.arange(VOCAB, dtype=torch.float64)
    return torch.cos(input_ids.double()[..., None] * t).float()


documents = st.lists(st.lists(st.integers(1, VOCAB - 1), max_size=40), min_size=1, max_size=12)


@settings(deadline=None)
@given(documents, st.integers(1, 24), st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_token_is_scored_once_with_the_token_before(ids, context_length, batch_size, random):
    """The bigram score has a closed form that must not depend on window length, batch size or order."""
    sizes = np.array([len(document) * 3 for document in ids], dtype=np.int64)
    if not sizes.sum():
        return
    subset = random.sample(range(len(ids)), random.randint(1, len(ids)))
    if not sizes[subset].sum():
        return
    score = bits_per_byte(
        logits_nll(token_costs),
        TokenLists(ids, sizes),
        context_length=context_length,
        bos_id=BOS,
        batch_size=batch_size,
        subset=subset,
    )
    expected = []
    for index in subset:
        logprobs = token_costs(torch.tensor([BOS, *ids[index][:-1]])).double().log_softmax(-1)
        expected.append(-sum(float(logprobs[i, token]) for i, token in enumerate(ids[index])))
    np.testing.assert_allclose(score.document_nll, expected, atol=1e-4)
    assert score.tokens == sum(len(ids[index]) for index in subset)
    assert score.bytes == sizes[subset].sum()
    assert score.bpb == pytest.approx(sum(expected) / math.log(2) / sizes[subset].sum(), abs=1e-4)


def test_uniform_predictions_cost_log2_of_the_vocabulary(real_documents: list[str], tokenizer: Tokenizer):
    scored = encode_texts(real_documents[:20], tokenizer)
    know_nothing = logits_nll(lambda ids: torch.zeros(*ids.shape, tokenizer.vocab_size))
    score = bits_per_byte(know_nothing, scored, context_length=128, bos_id=tokenizer.bos_id)
    n_bytes = sum(len(text.encode()) for text in real_documents[:20])
    assert score.bpb == pytest.approx(score.tokens * math.log2(tokenizer.vocab_size) / n_bytes, rel=1e-5)


def test_both_scoring_functions_agree(model: Transformer, real_documents: list[str], tokenizer: Tokenizer):
    """groundup's models are scored without logits, other models with logits; one table compares them."""
    scored = encode_texts(real_documents[:5], tokenizer)
    ours, theirs = (
        bits_per_byte(nll, scored, context_length=64, bos_id=tokenizer.bos_id, batch_size=size)
        for nll, size in ((model_nll(model), 4), (logits_nll(model), 1))
    )
    np.testing.assert_allclose(ours.document_nll, theirs.document_nll, rtol=1e-5)


def test_a_short_document_is_one_forward_pass(model: Transformer, tokenizer: Tokenizer):
    text = "The quick brown fox — naïve, 東京"
    score = bits_per_byte(model_nll(model), encode_texts([text], tokenizer), context_length=64, bos_id=tokenizer.bos_id)
    ids = tokenizer.encode(text)
    logprobs = model(torch.tensor([[tokenizer.bos_id, *ids]]))[0].log_softmax(-1)
    nll = -sum(float(logprobs[i, token]) for i, token in enumerate(ids))
    assert score.bpb == pytest.approx(nll / math.log(2) / len(text.encode()), rel=1e-5)


def test_a_single_document_is_resampled_by_windows(model: Transformer, real_documents: list[str], tokenizer: Tokenizer):
    """A single document cannot be resampled, so its windows are."""
    few = encode_texts(["".join(real_documents[:10])], tokenizer)
    score = bits_per_byte(model_nll(model), few, context_length=64, bos_id=tokenizer.bos_id)
    assert score.documents < MIN_DOCUMENTS
    interval = score.interval()
    assert interval.low < score.bpb < interval.high
    assert interval.estimate == pytest.approx(score.bpb)
    assert math.isfinite(interval.low) and math.isfinite(interval.high)


def test_empty_text_is_an_error(model: Transformer, tokenizer: Tokenizer):
    with pytest.raises(DataError, match="0 bytes"):
        bits_per_byte(model_nll(model), encode_texts(["", ""], tokenizer), context_length=8, bos_id=BOS)


def test_a_diverged_model_is_an_error():
    """A report must not contain "nan bits per byte", which is neither better nor worse."""
    diverged = logits_nll(lambda ids: torch.full((*ids.shape, VOCAB), math.nan))
    with pytest.raises(FormatError, match="nan"):
        bits_per_byte(diverged, TokenLists([[1, 2]], np.array([4])), context_length=8, bos_id=BOS)
