"""From logits to the next token: pure functions of logits, options, history and a generator.

Shape letters: V vocab. The order is that of Hugging Face's and vLLM's samplers: logit bias, penalties, temperature,
top-k, top-p, min-p, one draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.core.errors import ConfigError, FormatError

MAX_BIAS = 100.0  # bans a token (negative) or selects it exclusively (positive), as in OpenAI's API


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn. The defaults draw from the model's own distribution.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token, always (greedy).
        top_k: only the k most likely tokens can be drawn (Fan et al. 2018), ties with the k-th included;
            None: all.
        top_p: only the smallest set of most likely tokens whose mass reaches p (nucleus, Holtzman et al.
            2020).
        min_p: only tokens at least min_p times as likely as the most likely one (Nguyen et al. 2024).
        repetition_penalty: logits of tokens in prompt or output are divided by it where positive and
            multiplied where negative (CTRL, Keskar et al. 2019).
        frequency_penalty: taken from a token's logit for each time that the output holds it.
        presence_penalty: taken from a token's logit once the output holds it.
        logit_bias: (token id, bias) pairs, as in OpenAI's API: the bias, from -100 to 100, is added to the token's
            logit. -100 bans the token; where tokens have 100, only they can be drawn.

    Raises:
        ConfigError: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        _require("temperature", self.temperature, self.temperature >= 0, "0 or more", "0 for greedy, 0.8 for prose")
        if self.top_k is not None:
            _require("top_k", self.top_k, self.top_k >= 1, "1 or more", "40, or leave it out")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and up to 1", "0.95, or 1 for all")
        _require("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1", "0.05, or 0 for all")
        _require(
            "repetition_penalty",
            self.repetition_penalty,
            self.repetition_penalty > 0,
            "above 0",
            "1.1, or 1 for none",
        )
        for name in ("frequency_penalty", "presence_penalty"):
            _require(name, getattr(self, name), abs(getattr(self, name)) <= 100, "from -100 to 100", "0.5, or 0")
        for token, bias in self.logit_bias:
            holds = token >= 0 and abs(bias) <= MAX_BIAS
            _require(f"logit_bias of token {token}", bias, holds, "from -100 to 100, for an id >= 0", "-100, or 5")

    @property
    def penalizes(self) -> bool:
        """Whether the history of a request changes its logits."""
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0


def _require(name: str, value: float, holds: bool, rule: str, example: str) -> None:
    if not (holds and math.isfinite(value)):
        raise ConfigError(f"{name} = {value}", rule=f"{name} is {rule}", fix=f"Give e.g. {example}.")


def add_bias(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """Apply the logit bias. Where no token would be left that can come next, it has no effect.

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
        logits_V: fp32; left as it is.
        prompt_ids, output_ids: 1-D int64, what was given and what was generated so far.

    Returns:
        New logits (V,).
    """
    counts_V = torch.bincount(output_ids, minlength=logits_V.numel()).to(logits_V)
    seen_V = counts_V > 0
    seen_V[prompt_ids] = True
    factor = sampling.repetition_penalty
    repeated_V = torch.where(logits_V > 0, logits_V / factor, logits_V * factor)
    penalized_V = torch.where(seen_V, repeated_V, logits_V)
    return penalized_V - sampling.frequency_penalty * counts_V - sampling.presence_penalty * (counts_V > 0)


def distribution(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """The probabilities (V,), float64, of the next token; greedy puts all mass on one."""
    if sampling.temperature == 0:
        probs_V = torch.zeros_like(logits_V, dtype=torch.float64)
        probs_V[logits_V.argmax()] = 1
        return probs_V
    # Shifted before it is divided: a tiny temperature would overflow the largest logit to infinity.
    scaled_V = (logits_V.double() - logits_V.max()) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scaled_V.numel():
        kth = scaled_V.topk(sampling.top_k).values[-1]
        scaled_V = scaled_V.masked_fill(scaled_V < kth, -math.inf)
    probs_V = scaled_V.softmax(dim=-1)
    if sampling.top_p < 1:
        sorted_probs_V, order_V = probs_V.sort(descending=True, stable=True)
        mass_before_V = sorted_probs_V.cumsum(dim=-1) - sorted_probs_V
        probs_V = probs_V.index_fill(0, order_V[mass_before_V >= sampling.top_p], 0.0)
    if sampling.min_p > 0:
        probs_V = probs_V.masked_fill(probs_V < sampling.min_p * probs_V.max(), 0.0)
    return probs_V / probs_V.sum()


def draw(probs_V: Tensor, generator: torch.Generator) -> int:
    """One token id by inverting the cumulative distribution at one uniform number of the generator."""
    cumulative_V = probs_V.cumsum(dim=-1)
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative_V[-1]
    # right=True skips tokens of no mass; the clamp guards against a rounded-up point at the very end.
    index = int(torch.searchsorted(cumulative_V, point, right=True))
    return min(index, int(probs_V.nonzero()[-1]))


def sample(
    logits_V: Tensor, sampling: Sampling, prompt_ids: Tensor, output_ids: Tensor, generator: torch.Generator
) -> int:
    """Draw the next token.

    Raises:
        FormatError: the logits are not numbers.
    """
    if not bool(torch.isfinite(logits_V.max())):  # a NaN anywhere is the maximum; -inf only rules a token out
        raise FormatError(
            "logits: not finite",
            rule="a sound model gives finite logits",
            fix="Its weights are damaged or its training diverged: copy or train it again.",
        )
    logits_V = add_bias(logits_V, sampling)
    if sampling.penalizes:
        logits_V = penalize(logits_V, sampling, prompt_ids, output_ids)
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    return draw(distribution(logits_V, sampling), generator)
