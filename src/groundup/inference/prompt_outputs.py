"""Outputs of the tokens of a prompt: their log-probabilities, and the embedding of the prompt.

The results do not depend on how the prompt is split into forward passes, because each token is processed by itself and
in order.

Shape letters: R rows (tokens), V vocab, D dim.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from groundup.inference.request import GenerationRequest, TokenLogprob
from groundup.inference.sampling import not_finite
from groundup.kernels.native_sampling import log_sum_exp


def token_logprob(logits_V: Tensor, token: int, top: int, vocab_size: int) -> TokenLogprob:
    """Return the log-probability of a token, and of the most likely tokens.

    The probabilities are normalized over all logits, as in transformers.

    Args:
        logits_V: Logits (V,) in fp32 at the position before the token.
        token: ID of the token.
        top: Number of most likely tokens.
        vocab_size: Number of tokens of the tokenizer. Larger IDs are not reported.
    """
    normalizer = log_sum_exp(logits_V)
    if not top:
        return TokenLogprob(token, float(logits_V[token]) - normalizer, ())
    best = logits_V[:vocab_size].topk(min(top, vocab_size))
    pairs = zip(best.indices.tolist(), (best.values.double() - normalizer).tolist(), strict=True)
    return TokenLogprob(token, float(logits_V[token]) - normalizer, tuple(pairs))


class PromptLogprobs:
    """Log-probabilities of the tokens of a prompt. It is a `RowReader` of logits.

    Args:
        ids: IDs of the prompt.
        top: Number of most likely tokens to report for each token.
        start: Index of the first token to report.
        vocab_size: Number of tokens of the tokenizer. The model may have more logits.
    """

    reads_states = False

    def __init__(self, ids: Sequence[int], top: int, start: int, vocab_size: int) -> None:
        self._ids = tuple(ids)
        self._top = top
        self._vocab_size = vocab_size
        self._found = [TokenLogprob(ids[0], None)] if start == 0 else []
        self.position, self.end = max(0, start - 1), len(ids) - 1

    def read(self, rows: Tensor) -> None:
        """Read the logits (R, V) of the next tokens."""
        for logits_V in rows:
            self.position += 1
            self._found.append(token_logprob(logits_V, self._ids[self.position], self._top, self._vocab_size))

    def result(self) -> tuple[TokenLogprob, ...]:
        """Return the log-probabilities.

        Raises:
            FormatError: The logits are NaN or infinite.
        """
        if any(each.logprob is not None and not math.isfinite(each.logprob) for each in self._found):
            raise not_finite()
        return tuple(self._found)


class MeanPooling:
    """Mean of the hidden states of a prompt, divided by its L2 norm. It is a `RowReader` of hidden states.

    Args:
        num_tokens: Number of tokens of the prompt.
    """

    reads_states = True

    def __init__(self, num_tokens: int) -> None:
        self.position, self.end = 0, num_tokens
        self._sum_D: Tensor | None = None

    def read(self, rows: Tensor) -> None:
        """Read the hidden states (R, D) of the next tokens."""
        for state_D in rows.double():
            self._sum_D = state_D.clone() if self._sum_D is None else self._sum_D.add_(state_D)
            self.position += 1

    def result(self) -> Tensor:
        """Return the embedding (D,) in fp32.

        Raises:
            FormatError: The hidden states are NaN or infinite.
        """
        assert self._sum_D is not None
        embedding_D = self._sum_D / self._sum_D.norm().clamp(min=1e-12)
        if not bool(embedding_D.isfinite().all()):
            raise not_finite()
        return embedding_D.float()


def prompt_reader(
    request: GenerationRequest, ids: Sequence[int], vocab_size: int
) -> PromptLogprobs | MeanPooling | None:
    """Return the reader of the outputs that a request needs of its prompt.

    Args:
        request: The request.
        ids: IDs of the prompt.
        vocab_size: Number of tokens of the tokenizer.
    """
    if request.embedding:
        return MeanPooling(len(ids))
    if request.prompt_logprobs is not None:
        return PromptLogprobs(ids, request.prompt_logprobs, request.prompt_logprobs_start, vocab_size)
    return None
