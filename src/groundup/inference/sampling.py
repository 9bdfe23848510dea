"""Sampling of the next token: pure functions of logits, settings, previous tokens and a generator.

The steps run in the order of Hugging Face's and vLLM's samplers: logit bias, penalties, temperature, top-k, top-p,
min-p, draw.

Shape letters: V vocab.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.core.errors import ConfigError, FormatError
from groundup.kernels.native_sampling import sample_natively

_NUCLEUS_CANDIDATES = 512  # tokens that are sorted for top-p at first
_MAX_LOGIT = 1e30  # of a penalized token
MAX_BIAS = 100.0  # -100 bans a token, 100 selects it exclusively, as in OpenAI's API


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling settings. The defaults sample from the model's unchanged distribution.

    Attributes:
        temperature: Divisor of the logits. 0: greedy decoding (always the most likely token).
        top_k: Sample from the k most likely tokens, including ties with the k-th (Fan et al. 2018). None: all tokens.
        top_p: Sample from the smallest set of most likely tokens whose probabilities sum to p (nucleus sampling,
            Holtzman et al. 2020).
        min_p: Sample from tokens that are at least min_p times as likely as the most likely token (Nguyen et al. 2024).
        repetition_penalty: For tokens of prompt and output, positive logits are divided by it and negative logits
            multiplied (CTRL, Keskar et al. 2019).
        frequency_penalty: Subtracted from a token's logit for each occurrence in the output.
        presence_penalty: Subtracted once from the logit of each token in the output.
        logit_bias: (token id, bias) pairs as in OpenAI's API. The bias, from -100 to 100, is added to the token's
            logit. -100 bans the token. If tokens have a bias of 100, only these can be sampled.
        no_repeat_ngram_size: Number of tokens of the n-grams that cannot occur again in the output, except where a
            grammar determines the tokens (`groundup.inference.repetition`). 0: any n-gram can occur again.

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        _require("temperature", self.temperature, self.temperature >= 0, "0 or more", "0 (greedy) or 0.8")
        if self.top_k is not None:
            _require("top_k", self.top_k, self.top_k >= 1, "1 or more", "40, or omit it")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1", "0.95, or 1 for all tokens")
        _require("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1", "0.05, or 0 for all tokens")
        _require(
            "repetition_penalty",
            self.repetition_penalty,
            self.repetition_penalty > 0,
            "above 0",
            "1.1, or 1 for no penalty",
        )
        for name in ("frequency_penalty", "presence_penalty"):
            _require(name, getattr(self, name), abs(getattr(self, name)) <= 100, "from -100 to 100", "0.5, or 0")
        for token, bias in self.logit_bias:
            holds = token >= 0 and abs(bias) <= MAX_BIAS
            _require(f"logit_bias of token {token}", bias, holds, "from -100 to 100, for an id >= 0", "-100 or 5")
        size = self.no_repeat_ngram_size
        _require("no_repeat_ngram_size", size, size == 0 or size >= 2, "0, or 2 or more", "4, or 0 to allow repetition")

    @property
    def penalizes(self) -> bool:
        """Whether any penalty for previous tokens is set."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0


def _require(name: str, value: float, holds: bool, rule: str, example: str) -> None:
    if not (holds and math.isfinite(value)):
        raise ConfigError(f"{name} = {value}", rule=f"{name} must be {rule}", fix=f"Set e.g. {example}.")


def add_bias(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """Apply the logit bias. A bias that would exclude all possible tokens has no effect.

    Args:
        logits_V: Logits (V,), not changed.
        sampling: Sampling settings.

    Returns:
        New logits (V,).
    """
    pairs = [(token, bias) for token, bias in sampling.logit_bias if token < len(logits_V)]
    if not pairs:
        return logits_V
    ids, biases = torch.tensor([token for token, _ in pairs]), torch.tensor([bias for _, bias in pairs])
    biased_V = logits_V.index_add(0, ids, biases.to(logits_V))
    biased_V[ids[biases <= -MAX_BIAS]] = -math.inf
    if len(only := ids[biases >= MAX_BIAS]):
        biased_V = torch.full_like(biased_V, -math.inf).index_copy(0, only, biased_V[only])
    return biased_V if bool(biased_V.isfinite().any()) else logits_V


def penalize(logits_V: Tensor, sampling: Sampling, prompt_ids: Tensor, output_ids: Tensor) -> Tensor:
    """Apply the repetition, frequency and presence penalties.

    Args:
        logits_V: Logits (V,), fp32, not changed.
        sampling: Sampling settings.
        prompt_ids: Token ids of the prompt, 1-D, int64.
        output_ids: Token ids generated so far, 1-D, int64.

    Returns:
        New logits (V,).
    """
    # Only the logits of previous tokens change, which are far fewer than the vocabulary.
    penalized_V, factor = logits_V.clone(), sampling.repetition_penalty
    seen = torch.cat([prompt_ids, output_ids]).unique()
    logits = logits_V[seen]
    # A penalty near 0 or a very large one must not cause infinite logits.
    repeated = torch.where(logits > 0, logits / factor, logits * factor).clamp(-_MAX_LOGIT, _MAX_LOGIT)
    penalized_V[seen] = repeated.where(logits.isfinite(), logits)
    generated, counts = output_ids.unique(return_counts=True)
    penalized_V[generated] -= sampling.frequency_penalty * counts.to(logits_V) + sampling.presence_penalty
    return penalized_V


def distribution(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """Return the next token's probabilities (V,), float64, after temperature, top-k, top-p and min-p.

    Args:
        logits_V: Logits (V,) after bias and penalties.
        sampling: Sampling settings. With temperature 0, the most likely token has probability 1.
    """
    if sampling.temperature == 0:
        probs_V = torch.zeros_like(logits_V, dtype=torch.float64)
        probs_V[logits_V.argmax()] = 1
        return probs_V
    # Subtract the maximum before dividing: a very small temperature would otherwise overflow to infinity.
    scaled_V = (logits_V.double() - logits_V.max()) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scaled_V.numel():
        kth = scaled_V.topk(sampling.top_k).values[-1]
        scaled_V = scaled_V.masked_fill(scaled_V < kth, -math.inf)
    probs_V = scaled_V.softmax(dim=-1)
    if sampling.top_p < 1:
        probs_V = _nucleus(probs_V, sampling.top_p)
    if sampling.min_p > 0:
        probs_V = probs_V.masked_fill(probs_V < sampling.min_p * probs_V.max(), 0.0)
    return probs_V / probs_V.cumsum(dim=-1)[-1]  # sum() rounds by the number of threads


def _nucleus(probs_V: Tensor, top_p: float) -> Tensor:
    """Return the probabilities with those outside of the nucleus set to 0.

    Only the candidates are sorted: sorting a vocabulary of 49k tokens takes as long as a forward pass of a small model.
    """
    count = _NUCLEUS_CANDIDATES
    while count < len(probs_V):
        largest = probs_V.topk(count).values
        if float(largest.cumsum(dim=-1)[-1]) >= top_p:
            break
        count *= 8
    candidates = (probs_V >= largest[-1]).nonzero().squeeze(-1) if count < len(probs_V) else torch.arange(len(probs_V))
    sorted_probs, order = probs_V[candidates].sort(descending=True, stable=True)
    mass_before = sorted_probs.cumsum(dim=-1) - sorted_probs
    kept = candidates[order[mass_before < top_p]]
    return torch.zeros_like(probs_V).index_copy(0, kept, probs_V[kept])


def draw(probs_V: Tensor, uniform: float) -> int:
    """Sample one token id by inverse transform sampling.

    Args:
        probs_V: Probabilities (V,), float64.
        uniform: Random number in [0, 1).
    """
    cumulative_V = probs_V.cumsum(dim=-1)
    point = uniform * cumulative_V[-1]
    # right=True skips tokens with probability 0; min() handles a point that rounding puts at the end.
    index = int(torch.searchsorted(cumulative_V, point, right=True))
    return min(index, int(probs_V.nonzero()[-1]))


def not_finite() -> FormatError:
    """Return the error for outputs of a model that are NaN or infinite."""
    return FormatError(
        "logits: not finite",
        rule="the model computes NaN or infinity",
        fix="Its weights are damaged or its training diverged: copy the model again, or train it again.",
    )


def sample(
    logits_V: Tensor,
    sampling: Sampling,
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    generator: torch.Generator,
) -> int:
    """Sample the next token.

    Args:
        logits_V: Logits (V,), fp32.
        sampling: Sampling settings.
        prompt_ids: Token ids of the prompt.
        output_ids: Token ids generated so far.
        generator: Random generator on the CPU.

    Returns:
        The token id.

    Raises:
        FormatError: The logits are NaN or infinite.
    """
    logits_V = add_bias(logits_V, sampling)
    if sampling.penalizes:
        prompt, output = (torch.tensor(ids, dtype=torch.int64) for ids in (prompt_ids, output_ids))
        logits_V = penalize(logits_V, sampling, prompt, output)
    uniform = 0.0 if sampling.temperature == 0 else float(torch.rand((), generator=generator, dtype=torch.float64))
    token = sample_natively(
        logits_V,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        uniform=uniform,
    )
    if token is None:
        if not bool(torch.isfinite(logits_V.max())):  # max() returns NaN if any logit is; -inf only excludes a token
            raise not_finite()
        return draw(distribution(logits_V, sampling), uniform)
    if token < 0:
        raise not_finite()
    return token
