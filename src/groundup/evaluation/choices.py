"""Scoring of multiple-choice questions by log-likelihood, with the same accuracy metrics as lm-evaluation-harness.

Shape letters: E: number of questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from groundup.data.choices import Choice
from groundup.evaluation.stats import Interval, ratio_interval
from groundup.inference.likelihood import loglikelihoods
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """Accuracy of a model on multiple-choice questions.

    Attributes:
        loglikelihoods: for each question, the log-likelihood in nats of each choice given the prompt, summed over the
            tokens of the choice.
        accuracy: share of questions for which the most likely choice is correct.
        accuracy_per_byte: accuracy if each log-likelihood is divided by the number of UTF-8 bytes of the choice.
            Without this division, short choices have an advantage.
        chance: expected accuracy of randomly chosen answers.
        right_E: 1 for each question whose most likely choice is correct, otherwise 0.
    """

    loglikelihoods: list[list[float]]
    accuracy: Interval
    accuracy_per_byte: Interval
    chance: float
    right_E: npt.NDArray[np.float64]

    def per_byte(self, items: Sequence[Choice]) -> list[list[float]]:
        """Return each log-likelihood divided by the number of UTF-8 bytes of the choice."""
        return _per_byte(self.loglikelihoods, items)

    def to_json(self) -> dict[str, Any]:
        """Return the accuracies as JSON values."""
        named = {"accuracy": self.accuracy, "accuracy_per_byte": self.accuracy_per_byte}
        return {name: interval.to_json() for name, interval in named.items()} | {"chance": self.chance}


def score_choices(
    model: Transformer,
    tokenizer: Tokenizer,
    items: Sequence[Choice],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> ChoiceScore:
    """Compute the log-likelihood of every choice of every question, and the accuracy.

    Args:
        model: model to evaluate.
        tokenizer: tokenizer of the model.
        items: multiple-choice questions.
        seed: seed of the bootstrap.
        batch_size: maximum number of choices per batch; default: limited only by the number of tokens.
        advance: callback for progress, called after each batch with its number of choices.

    Returns:
        The accuracies with bootstrap intervals.
    """
    requests = [choice_ids(tokenizer, item.prompt, choice) for item in items for choice in item.choices]
    sums = iter(_loglikelihoods(model, requests, batch_size, advance))
    found = [[next(sums) for _ in item.choices] for item in items]
    ones, right_E = np.ones(len(items)), right_choices(found, items)
    return ChoiceScore(
        found,
        ratio_interval(right_E, ones, seed=seed),
        ratio_interval(right_choices(_per_byte(found, items), items), ones, seed=seed),
        float(np.mean([1 / len(item.choices) for item in items])),
        right_E,
    )


def _per_byte(sums: Sequence[Sequence[float]], items: Sequence[Choice]) -> list[list[float]]:
    return [
        [nats / max(len(choice.encode()), 1) for nats, choice in zip(nats_of, item.choices, strict=True)]
        for nats_of, item in zip(sums, items, strict=True)
    ]


def group_accuracies(
    right_E: npt.NDArray[np.float64], groups: Mapping[str, Sequence[str]], *, seed: int = 0
) -> dict[str, dict[str, Interval]]:
    """Return the accuracy in each group of questions.

    Args:
        right_E: 1 for each question that is answered correctly, otherwise 0.
        groups: for each column, the group of each question.
        seed: seed of the bootstrap.

    Returns:
        For each column, the groups in alphabetical order with their accuracies.
    """
    found: dict[str, dict[str, Interval]] = {}
    for column, names in groups.items():
        of = np.array(names)
        parts = {str(name): right_E[of == name] for name in np.unique(of)}
        found[column] = {name: ratio_interval(part, np.ones(len(part)), seed=seed) for name, part in parts.items()}
    return found


def choice_ids(tokenizer: Tokenizer, prompt: str, choice: str) -> tuple[list[int], int]:
    """Return the token ids of a prompt followed by a choice, and the number of ids at the end that are scored.

    Prompt and choice are joined by a space and encoded as one text. If the prompt alone has n tokens, all ids after the
    first n belong to the choice. If the prompt is empty, the choice follows BOS.
    """
    if not prompt:
        ids = tokenizer.encode(choice)
        return [tokenizer.bos_id, *ids], len(ids)
    before = prompt.rstrip()
    together = tokenizer.encode_prompt(before + (prompt[len(before) :] + " " + choice))
    return together, max(len(together) - len(tokenizer.encode_prompt(before)), 1)


def _loglikelihoods(
    model: Transformer,
    requests: Sequence[tuple[list[int], int]],
    batch_size: int | None,
    advance: Callable[[int], None],
) -> list[float]:
    longest = model.config.context_length
    pairs = []
    for ids, scored in requests:
        # Sequences that exceed the context are truncated on the left, as in lm-evaluation-harness.
        kept, scored = ids[-(longest + 1) :], min(scored, longest)
        pairs.append((kept[:-scored], kept[-scored:]))
    return loglikelihoods(model, pairs, batch_size=batch_size, advance=advance)


def right_choices(scores: Sequence[Sequence[float]], items: Sequence[Choice]) -> npt.NDArray[np.float64]:
    """Return an array (E,) that is 1 for each question whose choice with the highest score is correct, otherwise 0.

    If n choices have the highest score, and one of them is correct, the question counts 1 / n.
    """
    best = [np.flatnonzero(np.asarray(of) == max(of)) for of in scores]
    return np.array([float(item.answer in of) / len(of) for of, item in zip(best, items, strict=True)])
