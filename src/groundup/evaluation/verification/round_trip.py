"""Inputs, limits and verdict of the round-trip check of an imported, exported or merged model.

Shape letters: T: sequence length, V: vocabulary size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from groundup.core.console import Console
from groundup.core.errors import FormatError
from groundup.evaluation.verification.agreement import GREEDY_TOKENS, Agreement, Runner, compare_engines
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer
from groundup.tokenizer.edge_cases import EDGE_CASES

NUM_TEXTS = 20
MAX_TEXT_TOKENS = 200
_MIN_CHARACTERS = 1500  # Minimum length of a text, which gives at least 200 tokens with most tokenizers.

CHECK_PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was",
    "def fibonacci(n):\n",
    "1, 2, 3, 4,",
    "Question: Why is the sky blue?\nAnswer:",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the differences between two engines.

    Attributes:
        top1: minimum share of positions at which both engines have the same most likely token.
        gap: maximum gap in nats at positions where the engines choose different tokens; see `Agreement`.
        kl: maximum Kullback-Leibler divergence, in nats per token.
        perplexity: maximum relative difference of the perplexity.
    """

    top1: float
    gap: float
    kl: float
    perplexity: float


# The limits named "exact" apply if both engines compute the same operations in float32 but in a different order. Limits
# that are named after a type, such as "bf16", allow for rounding to this type, with a margin. On a trained model of
# 2.9M parameters, llama.cpp agreed at 99.95 % of positions (KL 3e-8 nats) for f16, at 99.78 % (4e-6) for bf16, and at
# 99.50 % (4e-5) for q8_0. A model with a wrong permutation, norm offset or vocabulary exceeds even the widest limits.
# ENGINE_LIMITS maps the type of a file to the limits for two engines that read the same file. These limits allow for
# rounding inside an engine, because llama.cpp rounds activations to 8 bits if the weights are quantized.
ENGINE_LIMITS = {
    "f32": "exact",
    "f16": "f16",
    "bf16": "bf16",
    **dict.fromkeys(("q8_0", "q4_k", "q4_1", "q4_0"), "q8_0"),
}

# Minimum share of the tokenization edge cases that both engines tokenize equally. Engines differ in a few edge cases,
# which is only reported.
_MIN_EQUAL_IDS = 0.9

LIMITS: dict[str, Limits] = {
    "exact": Limits(0.995, 0.05, 1e-4, 1e-3),
    "f32": Limits(0.995, 0.05, 1e-4, 1e-3),
    "f16": Limits(0.99, 0.1, 1e-3, 2e-3),
    "bf16": Limits(0.95, 0.5, 1e-2, 1e-2),
    "q8_0": Limits(0.93, 1.0, 2e-2, 1e-2),
    # The quality loss of 4-bit quantization is reported but not limited. Errors are detected with `WEIGHT_LIMITS`.
    **dict.fromkeys(("q4_k", "q4_1", "q4_0"), Limits(0.0, math.inf, math.inf, math.inf)),
}
# Maximum relative error of a tensor, which is the root mean square of the difference divided by the root mean square of
# the values. Permuted rows cause an error of 1.4, a misplaced factor an error of 1, and rounding to 4 bits an error of
# 0.08 to 0.1. f32 files are exact except for Gemma's norms, because GGUF stores 1 + weight and the sum is rounded.
WEIGHT_LIMITS = {"f32": 1e-6, "f16": 1e-3, "bf16": 5e-3, "q8_0": 0.02, "q4_k": 0.25, "q4_1": 0.25, "q4_0": 0.25}


class GroundupRunner:
    """A `Runner` that runs a model in groundup."""

    def __init__(self, name: str, model: Transformer, tokenizer: Tokenizer) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Return the next-token logits after each of `ids`, (T, V)."""
        with torch.inference_mode():
            return self._model(torch.tensor([list(ids)]))[0]

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Generate `count` tokens after `ids` by greedy decoding with the KV cache."""
        cache = self._model.new_cache(1, len(ids) + count)
        continuation: list[int] = []
        given = list(ids)
        with torch.inference_mode():
            while len(continuation) < count:
                scores_TV = self._model(torch.tensor([given]), cache=cache)[0]
                continuation.append(int(scores_TV[-1].argmax()))
                given = continuation[-1:]
        return continuation

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text without BOS."""
        return self._tokenizer.encode(text)


@dataclass(frozen=True, slots=True)
class CheckInputs:
    """Inputs of a round-trip check.

    Attributes:
        texts: token ids of each text for teacher-forced predictions.
        prompts: token ids of each prompt for greedy continuations.
        edge_cases: texts to tokenize, keyed by name.
    """

    texts: tuple[tuple[int, ...], ...]
    prompts: tuple[tuple[int, ...], ...]
    edge_cases: Mapping[str, str]

    @property
    def longest(self) -> int:
        """Length of the longest sequence in tokens, including generated tokens."""
        lengths = [len(ids) for ids in self.texts] + [len(ids) + GREEDY_TOKENS for ids in self.prompts]
        return max(lengths, default=1)

    @property
    def tokens(self) -> int:
        """Number of tokens that each engine processes."""
        return sum(map(len, self.texts)) + GREEDY_TOKENS * len(self.prompts)


def round_trip_inputs(tokenizer: Tokenizer, context_length: int, texts: Sequence[str] = ()) -> CheckInputs:
    """Return the inputs of the round-trip check for a model.

    Args:
        tokenizer: tokenizer of the model.
        context_length: maximum length of a text in tokens.
        texts: texts for teacher-forced predictions; default: pages of the Python language reference.

    Returns:
        The inputs.
    """
    length = min(MAX_TEXT_TOKENS, context_length)
    chosen = [tokenizer.encode_prompt(text[: 20 * MAX_TEXT_TOKENS])[:length] for text in texts or pages()]
    prompts = [tokenizer.encode_prompt(prompt) for prompt in CHECK_PROMPTS]
    return CheckInputs(
        tuple(tuple(ids) for ids in chosen if len(ids) >= 2)[:NUM_TEXTS],
        tuple(tuple(ids) for ids in prompts if len(ids) + GREEDY_TOKENS <= context_length),
        EDGE_CASES,
    )


def pages() -> list[str]:
    """Return some long pages of the Python language reference, which is included in every Python installation."""
    from pydoc_data.topics import topics

    long = [text for _, text in sorted(topics.items()) if len(text) >= _MIN_CHARACTERS]
    return long[:: max(1, len(long) // NUM_TEXTS)][:NUM_TEXTS]


def largest_error(state: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[str, float]:
    """Return the name of the tensor with the largest relative error between two state dicts, and this error.

    The relative error is the root mean square of the difference divided by the root mean square of the values in
    `state`.

    Raises:
        FormatError: the state dicts have different keys.
    """
    if missing := sorted(state.keys() ^ other.keys()):
        raise FormatError(
            f"tensors {', '.join(missing[:5])} exist in only one of the two models",
            rule="an exported model has the tensors of the original",
            fix="Please report this as a bug, with the family of the model.",
        )
    worst = ("", 0.0)
    for name, tensor in state.items():
        value = tensor.float()
        error = float((other[name].float() - value).norm() / value.norm().clamp(min=1e-12))
        if not error <= worst[1]:  # A NaN counts as the largest error.
            worst = (name, error)
    return worst


@dataclass(frozen=True, slots=True)
class Check:
    """Two engines to compare, and the name of the limits in `LIMITS`."""

    reference: Runner
    other: Runner
    limits: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a round-trip check.

    Attributes:
        agreements: agreement of each pair of engines.
        limits: name of the limits for each pair of engines.
        problems: messages about values that exceed the limits; empty if the check passed.
        absent: messages about engines that are not installed.
    """

    agreements: tuple[Agreement, ...]
    limits: tuple[str, ...]
    problems: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result, the agreements and the limits as JSON values."""
        checks = [
            agreement.to_json() | {"limits": _finite(asdict(LIMITS[name])), "cells": list(cells(agreement))}
            for agreement, name in zip(self.agreements, self.limits, strict=True)
        ]
        return {
            "passed": not self.problems,
            "problems": list(self.problems),
            "absent": list(self.absent),
            "checks": checks,
        }


def require_no_problems(
    problems: Sequence[str], what: str, instead: str = "Please report this as a bug, with the family of the model"
) -> None:
    """Raise `FormatError` if there are problems.

    Args:
        problems: messages about values that exceed the limits.
        what: name of the checked model or file.
        instead: advice on what the user can do.
    """
    if problems:
        raise FormatError(
            f"{what}: {'; '.join(problems[:4])}",
            rule="the result of an import, export or merge must agree with the original",
            fix=f"The result was deleted. {instead}; --no-verify skips the check.",
        )


def run_checks(
    checks: Sequence[Check], inputs: CheckInputs, *, console: Console, label: str, absent: Sequence[str] = ()
) -> Verdict:
    """Compare pairs of engines, and check that the differences are within the limits.

    Args:
        checks: pairs of engines with the names of their limits.
        inputs: inputs of the check.
        console: console that prints notes and progress.
        label: label of the progress bar.
        absent: messages about engines that are not installed.

    Returns:
        The result.
    """
    pairs = [(check.reference, check.other) for check in checks]
    engines = {id(runner) for pair in pairs for runner in pair}
    with console.progress(label, len(engines) * inputs.tokens, "tokens") as bar:
        found = compare_engines(
            pairs, texts=inputs.texts, prompts=inputs.prompts, edge_cases=inputs.edge_cases, advance=bar.advance
        )
    problems = [p for agreement, check in zip(found, checks, strict=True) for p in _problems(agreement, check.limits)]
    for message in absent:
        console.note(message)
    for agreement in found:
        if agreement.ids_differ:
            console.warn(f"{agreement.who} tokenizes these texts differently: {', '.join(agreement.ids_differ)}")
    return Verdict(tuple(found), tuple(check.limits for check in checks), tuple(problems), tuple(absent))


COLUMNS = ("top-1", "gap", "KL, nats", "perplexity", "greedy", "ids")


def cells(agreement: Agreement) -> tuple[str, ...]:
    """Return the table row of one agreement. The columns are `COLUMNS`."""
    return (
        f"{agreement.top1:.2%}",
        f"{agreement.worst_gap:.3f}" if agreement.agreed < agreement.positions else "-",
        f"{agreement.kl:.1e}",
        f"{agreement.perplexity:.3f}",
        f"{sum(gap is None for _, gap in agreement.greedy)}/{len(agreement.greedy)}",
        f"{agreement.ids_equal}/{agreement.ids_total}",
    )


def _problems(found: Agreement, name: str) -> list[str]:
    limits = LIMITS[name]
    relative = abs(found.perplexity / found.reference_perplexity - 1)
    broken = {
        f"same top token at {found.top1:.2%} of positions, less than {limits.top1:.1%}": found.top1 >= limits.top1,
        f"a top token differs at a gap of {found.worst_gap:.3f} nats": found.worst_gap <= limits.gap,
        f"KL divergence {found.kl:.2e} nats, more than {limits.kl:g}": abs(found.kl) <= limits.kl,
        f"perplexity differs by {relative:.2%}": relative <= limits.perplexity,
        f"a greedy continuation differs at a gap of {found.greedy_gap:.3f} nats": found.greedy_gap <= limits.gap,
        f"token ids differ in {len(found.ids_differ)} of {found.ids_total} texts": found.ids_equal
        >= _MIN_EQUAL_IDS * found.ids_total,
    }
    # A comparison with NaN is False, so a model with NaNs fails.
    return [f"{found.who}: {problem}" for problem, fine in broken.items() if not fine]


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
