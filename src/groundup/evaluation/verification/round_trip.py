"""The round-trip gate: what is compared when a model came in or goes out, how much may differ, and the verdict.

Shape letters: T sequence, V vocab.
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
from groundup.tokenizer.torture import TORTURE

TEXTS = 20
TEXT_TOKENS = 200
_LEAST_CHARACTERS = 1500  # of a text: 200 tokens of any vocabulary that merges at all

PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was",
    "def fibonacci(n):\n",
    "1, 2, 3, 4,",
    "Question: Why is the sky blue?\nAnswer:",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much two readings may differ before one of them is called wrong.

    Attributes:
        top1: share of positions at which both find the same token likeliest.
        gap: nats between the reference's first and second choice, at most, where they do not.
        kl: nats a token.
        perplexity: relative difference.
    """

    top1: float
    gap: float
    kl: float
    perplexity: float


# "exact": the same numbers, added up in another order. The rest hold what rounding to that type does, with a margin: on
# a trained model of 2.9M parameters llama.cpp found 99.95 % and 3e-8 nats with f16, 99.78 % and 4e-6 with bf16, 99.50 %
# and 4e-5 with q8_0. A wrong permutation, a norm off by one or a shifted vocabulary miss even the widest by far.
# What an engine adds to that by its own arithmetic: llama.cpp rounds activations to 8 bits where weights are quantized.
ENGINE_LIMITS = {"f32": "exact", "f16": "f16", "bf16": "bf16", "q8_0": "q8_0", "q4_k": "q8_0", "q4_0": "q8_0"}

_IDS = 0.9  # of the torture set: engines have quirks there (each difference is told), but not at every tenth text

LIMITS: dict[str, Limits] = {
    "exact": Limits(0.995, 0.05, 1e-4, 1e-3),
    "f32": Limits(0.995, 0.05, 1e-4, 1e-3),
    "f16": Limits(0.99, 0.1, 1e-3, 2e-3),
    "bf16": Limits(0.95, 0.5, 1e-2, 1e-2),
    "q8_0": Limits(0.93, 1.0, 2e-2, 1e-2),
    # What 4 bits do to a model is told and not judged: that its weights are the model's, `WEIGHT_LIMITS` says.
    "q4_k": Limits(0.0, math.inf, math.inf, math.inf),
    "q4_0": Limits(0.0, math.inf, math.inf, math.inf),
}
# How far a tensor may be from the model's: root mean square of the difference over that of the values. Rows in another
# order are at 1.4, a factor in the wrong place at 1; rounding to 4 bits at 0.08 to 0.1.
# F32 keeps every bit, but for Gemma's norms: GGUF stores 1 + weight, and the sum is rounded.
WEIGHT_LIMITS = {"f32": 1e-6, "f16": 1e-3, "bf16": 5e-3, "q8_0": 0.02, "q4_k": 0.25, "q4_0": 0.25}


class OurRunner:
    """A model as groundup runs it."""

    def __init__(self, name: str, model: Transformer, tokenizer: Tokenizer) -> None:
        self.name = name
        self._model = model
        self._tokenizer = tokenizer

    def logits(self, ids: Sequence[int]) -> Tensor:
        """(T, V)."""
        with torch.inference_mode():
            return self._model(torch.tensor([list(ids)]))[0]

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """With the key-value cache, a token at a time."""
        cache = self._model.new_cache(1, len(ids) + count)
        written: list[int] = []
        given = list(ids)
        with torch.inference_mode():
            while len(written) < count:
                scores_TV = self._model(torch.tensor([given]), cache=cache)[0]
                written.append(int(scores_TV[-1].argmax()))
                given = written[-1:]
        return written

    def encode(self, text: str) -> list[int]:
        """As training does."""
        return self._tokenizer.encode(text)


@dataclass(frozen=True, slots=True)
class Material:
    """What a model is tried on.

    Attributes:
        texts, prompts: ids, with BOS where the tokenizer has one.
        torture: name -> text, to tokenize.
    """

    texts: tuple[tuple[int, ...], ...]
    prompts: tuple[tuple[int, ...], ...]
    torture: Mapping[str, str]

    @property
    def longest(self) -> int:
        """Tokens that an engine must be able to hold."""
        lengths = [len(ids) for ids in self.texts] + [len(ids) + GREEDY_TOKENS for ids in self.prompts]
        return max(lengths, default=1)

    @property
    def tokens(self) -> int:
        """Tokens that each engine reads."""
        return sum(map(len, self.texts)) + GREEDY_TOKENS * len(self.prompts)


def material(tokenizer: Tokenizer, context_length: int, texts: Sequence[str] = ()) -> Material:
    """The gate's texts for a model: by default pages of Python's own reference, which every Python brings along.

    Args:
        context_length: no text is longer.
        texts: others to be predicted, cut to the same length.
    """
    length = min(TEXT_TOKENS, context_length)
    chosen = [tokenizer.encode_prompt(text[: 20 * TEXT_TOKENS])[:length] for text in texts or pages()]
    prompts = [tokenizer.encode_prompt(prompt) for prompt in PROMPTS]
    return Material(
        tuple(tuple(ids) for ids in chosen if len(ids) >= 2)[:TEXTS],
        tuple(tuple(ids) for ids in prompts if len(ids) + GREEDY_TOKENS <= context_length),
        TORTURE,
    )


def pages() -> list[str]:
    """Long texts that every Python brings along: of its reference, from everywhere in it."""
    from pydoc_data.topics import topics

    long = [text for _, text in sorted(topics.items()) if len(text) >= _LEAST_CHARACTERS]
    return long[:: max(1, len(long) // TEXTS)][:TEXTS]


def farthest(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> tuple[str, float]:
    """The tensor that differs most between two state dicts, and by how much of its size (root mean square).

    Raises:
        FormatError: they have not the same tensors.
    """
    if missing := sorted(ours.keys() ^ theirs.keys()):
        raise FormatError(
            f"tensors {', '.join(missing[:5])} on one side only",
            rule="a model has the same tensors before and after",
            fix="Please report this, with the family of the model.",
        )
    worst = ("", 0.0)
    for name, tensor in ours.items():
        value = tensor.float()
        error = float((theirs[name].float() - value).norm() / value.norm().clamp(min=1e-12))
        if not error <= worst[1]:  # so that a NaN is the worst
            worst = (name, error)
    return worst


@dataclass(frozen=True, slots=True)
class Check:
    """Two engines to compare, and by which limits."""

    reference: Runner
    other: Runner
    limits: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found.

    Attributes:
        agreements: one for each check.
        limits: the name of each one's limits.
        problems: what is beyond them; empty: passed.
        absent: which engines were not asked, and how to get them.
    """

    agreements: tuple[Agreement, ...]
    limits: tuple[str, ...]
    problems: tuple[str, ...]
    absent: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values, the limits included."""
        checks = [
            agreement.to_json() | {"limits": _finite(asdict(LIMITS[name])), "cells": list(cells(agreement))}
            for agreement, name in zip(self.agreements, self.limits, strict=True)
        ]
        told = {"problems": list(self.problems), "absent": list(self.absent)}
        return {"passed": not self.problems, **told, "checks": checks}


def require_none(
    problems: Sequence[str], what: str, instead: str = "Please report this, with the family of the model"
) -> None:
    """Raise `FormatError` unless all is within its limits.

    Args:
        what: is being let through.
        instead: what to do then.
    """
    if problems:
        raise FormatError(
            f"{what}: {'; '.join(problems[:4])}",
            rule="a model means the same on both sides of an import, export or merge",
            fix=f"Nothing was kept. {instead}; --no-gate keeps it unchecked.",
        )


def run_gate(
    checks: Sequence[Check], tried: Material, *, console: Console, label: str, absent: Sequence[str] = ()
) -> Verdict:
    """Compare, and say what is beyond its limits.

    Args:
        label: of the progress bar.
        absent: what to say of engines that are not there.
    """
    pairs = [(check.reference, check.other) for check in checks]
    engines = {id(runner) for pair in pairs for runner in pair}
    with console.progress(label, len(engines) * tried.tokens, "tokens") as bar:
        found = compare_engines(
            pairs, texts=tried.texts, prompts=tried.prompts, torture=tried.torture, advance=bar.advance
        )
    problems = [p for agreement, check in zip(found, checks, strict=True) for p in _problems(agreement, check.limits)]
    for told in absent:
        console.note(told)
    for agreement in found:
        if agreement.ids_differ:
            console.warn(f"{agreement.who} splits these texts in another way: {', '.join(agreement.ids_differ)}")
    return Verdict(tuple(found), tuple(check.limits for check in checks), tuple(problems), tuple(absent))


COLUMNS = ("same top", "gap", "KL, nats", "perplexity", "greedy", "ids")


def cells(agreement: Agreement) -> tuple[str, ...]:
    """What stands below `COLUMNS`."""
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
        f"same top token {found.top1:.2%}, at least {limits.top1:.1%}": found.top1 >= limits.top1,
        f"a top token differs at a gap of {found.worst_gap:.3f} nats": found.worst_gap <= limits.gap,
        f"KL {found.kl:.2e} nats, at most {limits.kl:g}": abs(found.kl) <= limits.kl,
        f"perplexity differs by {relative:.2%}": relative <= limits.perplexity,
        f"a continuation parts at a gap of {found.greedy_gap:.3f} nats": found.greedy_gap <= limits.gap,
        f"ids differ in {len(found.ids_differ)} of {found.ids_total} texts": found.ids_equal >= _IDS * found.ids_total,
    }
    # Every comparison with NaN is false: a model of NaNs fails.
    return [f"{found.who}: {problem}" for problem, fine in broken.items() if not fine]


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
