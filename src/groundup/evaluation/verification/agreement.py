"""Agreement of two inference engines that run the same model.

The comparison covers logits, greedy continuations, and the token ids of texts.

Shape letters: T: sequence length, V: vocabulary size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

GREEDY_TOKENS = 16


class Runner(Protocol):
    """A model that runs in an inference engine."""

    name: str

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Return the next-token logits after each of `ids` as a float32 CPU tensor of shape (T, V)."""
        ...

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Generate `count` tokens after `ids` by greedy decoding with the engine's KV cache."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text without BOS. Names of special tokens are encoded as ordinary text."""
        ...


@dataclass(slots=True)
class Agreement:
    """Agreement of one engine with the reference engine.

    A gap is the difference between the log-probabilities of two tokens, in nats. If the engines choose different tokens
    and the gap is small, rounding explains the difference.

    Attributes:
        who: name of the engine.
        reference: name of the reference engine.
        positions: number of teacher-forced predictions.
        agreed: number of positions at which both engines have the same most likely token.
        worst_gap: largest gap between the two most likely tokens of the reference engine, over the positions at which
            the engines have different most likely tokens.
        max_difference: largest absolute difference between the logits of the two engines.
        scale: largest absolute logit of the reference engine.
        kl_sum: Kullback-Leibler divergence from the reference engine in nats, summed over positions.
        nll: negative log-likelihood of the texts in nats, computed by the engine.
        reference_nll: negative log-likelihood of the texts in nats, computed by the reference engine.
        scored: number of tokens over which `nll` is summed.
        greedy: for each prompt, the number of equal tokens at the beginning of both continuations, and the gap between
            the first two tokens that differ. The gap is None if the continuations are equal.
        ids_total: number of tokenized texts.
        ids_equal: number of texts with equal token ids.
        ids_differ: names of the texts with different token ids.
    """

    who: str
    reference: str
    positions: int = 0
    agreed: int = 0
    worst_gap: float = 0.0
    max_difference: float = 0.0
    scale: float = 0.0
    kl_sum: float = 0.0
    nll: float = 0.0
    reference_nll: float = 0.0
    scored: int = 0
    greedy: list[tuple[int, float | None]] = field(default_factory=list)
    ids_total: int = 0
    ids_equal: int = 0
    ids_differ: list[str] = field(default_factory=list)

    @property
    def top1(self) -> float:
        """Share of positions at which both engines have the same most likely token."""
        return self.agreed / max(self.positions, 1)

    @property
    def kl(self) -> float:
        """Mean Kullback-Leibler divergence from the reference engine, in nats per token."""
        return self.kl_sum / max(self.positions, 1)

    @property
    def perplexity(self) -> float:
        """Perplexity of the texts, computed by the engine."""
        return _exp(self.nll / max(self.scored, 1))

    @property
    def reference_perplexity(self) -> float:
        """Perplexity of the texts, computed by the reference engine."""
        return _exp(self.reference_nll / max(self.scored, 1))

    @property
    def greedy_gap(self) -> float:
        """Largest gap in `greedy`, or 0 if all greedy continuations are equal."""
        return max((gap for _, gap in self.greedy if gap is not None), default=0.0)

    def to_json(self) -> dict[str, Any]:
        """Return all attributes and derived values as JSON values."""
        derived = {"top1": self.top1, "kl": self.kl, "perplexity": self.perplexity}
        return asdict(self) | derived | {"reference_perplexity": self.reference_perplexity}

    def add_logits(self, reference_TV: Tensor, other_TV: Tensor, ids: Sequence[int]) -> None:
        """Add the logits of one text.

        If one engine pads the vocabulary, the logits of the padding tokens are ignored.
        """
        width = min(reference_TV.shape[1], other_TV.shape[1])
        reference_TV, other_TV = reference_TV[:, :width], other_TV[:, :width]
        p_TV, q_TV = reference_TV.double().log_softmax(-1), other_TV.double().log_softmax(-1)
        top_T2 = p_TV.topk(2, dim=-1).values
        same_T = p_TV.argmax(-1) == q_TV.argmax(-1)
        self.positions += len(ids)
        self.agreed += int(same_T.sum())
        if not same_T.all():
            self.worst_gap = max(self.worst_gap, float((top_T2[:, 0] - top_T2[:, 1])[~same_T].max()))
        self.max_difference = _larger(self.max_difference, (reference_TV - other_TV).abs().max())
        self.scale = _larger(self.scale, reference_TV.abs().max())
        self.kl_sum += float((p_TV.exp() * (p_TV - q_TV)).sum())
        following_T1 = torch.tensor(ids[1:])[:, None]
        self.reference_nll -= float(p_TV[:-1].gather(1, following_T1).sum())
        self.nll -= float(q_TV[:-1].gather(1, following_T1).sum())
        self.scored += len(ids) - 1

    def add_greedy(
        self, expected: Sequence[int], found: Sequence[int], reference: Runner, prompt: Sequence[int]
    ) -> None:
        """Add one greedy continuation. `reference` computes the gap between the first two tokens that differ."""
        same = next((i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), None)
        if same is None:
            self.greedy.append((min(len(expected), len(found)), None))
            return
        logprobs_V = reference.logits([*prompt, *expected[:same]])[-1].double().log_softmax(-1)
        self.greedy.append((same, float(logprobs_V[expected[same]] - logprobs_V[found[same]])))

    def add_ids(self, expected: Sequence[int], found: Sequence[int], name: str) -> None:
        """Add the token ids of one text."""
        self.ids_total += 1
        if list(expected) == list(found):
            self.ids_equal += 1
        else:
            self.ids_differ.append(name)


def compare_engines(
    pairs: Sequence[tuple[Runner, Runner]],
    *,
    texts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    edge_cases: Mapping[str, str],
    advance: Callable[[int], object] = lambda _: None,
) -> list[Agreement]:
    """Run each engine on all inputs, and compare the results of the engines in each pair.

    Args:
        pairs: (reference engine, other engine) pairs.
        texts: token ids of each text for teacher-forced predictions. Each text has at least 2 tokens.
        prompts: token ids of each prompt for greedy continuations.
        edge_cases: texts to tokenize, keyed by name.
        advance: callback for progress, called with the number of tokens that one engine has processed.

    Returns:
        The agreement of each pair.
    """
    runners = list({id(runner): runner for pair in pairs for runner in pair}.values())
    found = [Agreement(other.name, reference.name) for reference, other in pairs]

    def each(run: Callable[[Runner], Any], tokens: int) -> list[tuple[Agreement, Runner, Any, Any]]:
        results = {}
        for runner in runners:
            results[id(runner)] = run(runner)
            advance(tokens)
        zipped: Iterable[tuple[Agreement, tuple[Runner, Runner]]] = zip(found, pairs, strict=True)
        return [(a, reference, results[id(reference)], results[id(other)]) for a, (reference, other) in zipped]

    for ids in texts:
        for agreement, _, expected, got in each(lambda runner, ids=ids: runner.logits(ids), len(ids)):  # type: ignore[misc]
            agreement.add_logits(expected, got, ids)
    for ids in prompts:
        for agreement, reference, expected, got in each(
            lambda runner, ids=ids: runner.greedy(ids, GREEDY_TOKENS),  # type: ignore[misc]
            GREEDY_TOKENS,
        ):
            agreement.add_greedy(expected, got, reference, ids)
    for name, text in edge_cases.items():
        for agreement, _, expected, got in each(lambda runner, text=text: runner.encode(text), 0):  # type: ignore[misc]
            agreement.add_ids(expected, got, name)
    return found


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0))  # The exponential of a damaged model's loss could overflow.


def _larger(before: float, now: Tensor) -> float:
    value = float(now)
    return value if math.isnan(value) else max(before, value)  # max() alone could ignore a NaN.
