"""A classification head on the decoder of a language model."""

from __future__ import annotations

from collections.abc import Callable

import torch

from groundup.model import SequenceClassifier, Transformer
from groundup.tokenizer import Tokenizer


def test_the_initial_loss_is_uniform(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> None:
    """Large initial logits would damage the decoder's weights in the first steps."""
    base = tiny_model(tokenizer.vocab_size)
    model = SequenceClassifier.from_language_model(base, 40, seed=0)
    probabilities = model(torch.tensor([[0, 5, 9]]), torch.tensor([2])).softmax(-1)
    torch.testing.assert_close(probabilities, torch.full((1, 40), 1 / 40), atol=0.002, rtol=0)


def test_a_classifier_shares_the_decoder(tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]) -> None:
    """A copy would double the memory, and with a frozen decoder only the head would be trained."""
    base = tiny_model(tokenizer.vocab_size)
    model = SequenceClassifier.from_language_model(base, 3, seed=0)
    assert model.model.embed_tokens.weight.data_ptr() == base.model.embed_tokens.weight.data_ptr()
    assert all(parameter.requires_grad for parameter in model.parameters())
