"""Forecast of a training run on a given text: its bits per byte, and the number of tokens that are worth training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from groundup.model import ModelConfig
from groundup.model.flops import layer_parameters
from groundup.train.planner.law import DEFAULT_LAW, Law, LossInterval

T = TypeVar("T")

MIN_GAIN = 0.005  # bits per byte; training ends early if the remaining time would not improve the result by this
# Sizes of the samples for `ppmd_bits_per_byte`.
SAMPLE_BYTES = 250_000
HELD_OUT_SAMPLE_BYTES = 100_000
_PPMD_ORDER = 4
_PPMD_MEMORY = 64 << 20
BYTES_PER_TOKEN = 4.0  # assumed for text whose size, or whose number of tokens, is unknown
_STEP = 2**0.125  # ratio between the numbers of tokens that are compared
_NUM_STEPS = 64
# Teachers reduce the bits per byte by 4 % after 12 to 17 epochs of models with 1.3 and more layer parameters per
# byte of text (`benchmarks/ablations.md`). For smaller models, the effect is assumed to be proportional to their size.
_DISTILLATION_GAIN, _DISTILLED_PARAMETERS = 0.04, 1.3
_MIN_REPEATS = 6  # epochs below which it is not known whether teachers help
_TEACHER_COST = 0.35  # forward pass of a teacher, relative to a training step; 0.31 to 0.40 measured
_TEACHERS = (2, 3, 4)  # two and three were measured (`benchmarks/ablations.md`)
_BATCH_EPOCHS = 8


@dataclass(frozen=True, slots=True)
class Forecast:
    """A scaling law, applied to a training text.

    Attributes:
        tokens: Number of tokens per epoch.
        text_bytes: UTF-8 bytes per epoch; 0 means 4 bytes per token.
        ppmd: Result of `ppmd_bits_per_byte` for the text, or None if unknown.
        law: Scaling law.
        weight_decay: Weight decay of the run, or None for the planned one.
    """

    tokens: int
    text_bytes: int = 0
    ppmd: float | None = None
    law: Law = DEFAULT_LAW
    weight_decay: float | None = None

    def bits_per_byte(self, config: ModelConfig, tokens: float) -> float:
        """Return the predicted bits per byte of held-out text after training on a number of tokens."""
        return self._apply(self.law.bits_per_byte, config, tokens)

    def interval(self, config: ModelConfig, tokens: float, *, distilled: bool = False) -> LossInterval:
        """Return the predicted bits per byte of held-out text with a 90 % interval.

        Args:
            config: Architecture.
            tokens: Number of training tokens.
            distilled: Whether the model learns from teachers, see `groundup.train.teachers`.
        """
        found = self._apply(self.law.interval, config, tokens)
        factor = 1.0
        if distilled and self._repeats(tokens):
            factor -= _DISTILLATION_GAIN * min(1.0, layer_parameters(config) / self._bytes / _DISTILLED_PARAMETERS)
        return LossInterval(factor * found.value, factor * found.low, factor * found.high)

    def best_tokens(self, config: ModelConfig, max_tokens: float) -> float:
        """Return the number of tokens, at most `max_tokens`, with the lowest predicted bits per byte."""
        return min(self._candidates(max_tokens), key=lambda tokens: self.bits_per_byte(config, tokens))

    def useful_tokens(self, config: ModelConfig, max_tokens: float) -> float:
        """Return the number of tokens, at most `max_tokens`, after which training improves the result only slightly.

        The remaining tokens would reduce the bits per byte by less than `MIN_GAIN`. If that saves less than a quarter
        of the tokens, or if `max_tokens` is less than one epoch, the result is `max_tokens`.
        """
        candidates = self._candidates(max_tokens)
        best = min(self.bits_per_byte(config, tokens) for tokens in candidates)
        enough = min(tokens for tokens in candidates if self.bits_per_byte(config, tokens) < best + MIN_GAIN)
        return enough if enough < 0.75 * max_tokens else max_tokens

    def with_teachers(self, config: ModelConfig, affordable_tokens: float) -> tuple[float, int]:
        """Return the best number of tokens and of teachers of a run in a given time.

        Args:
            config: Architecture.
            affordable_tokens: Number of tokens on which the model can be trained in the available time.
        """
        useful = self.useful_tokens(config, affordable_tokens)
        taught = [(min(useful, affordable_tokens / distillation_runs(count)), count) for count in _TEACHERS]

        def result(run: tuple[float, int]) -> tuple[float, int]:
            tokens, teachers = run
            return self.interval(config, tokens, distilled=teachers > 0).value, -teachers

        return min([(useful, 0), *(run for run in taught if self._repeats(run[0]))], key=result)

    def best_bits_per_byte(self, config: ModelConfig, affordable_tokens: float, *, teaches: bool) -> float:
        """Return the lowest predicted bits per byte of a model that is trained in a given time.

        Args:
            config: Architecture.
            affordable_tokens: See `with_teachers`.
            teaches: Whether teachers may be trained.
        """
        affordable = max(1.0, affordable_tokens)
        tokens, teachers = self.with_teachers(config, affordable) if teaches else (0.0, 0)
        if teachers:
            return self.interval(config, tokens, distilled=True).value
        return self.bits_per_byte(config, self.best_tokens(config, affordable))

    def batch_size_tokens(self, tokens: float) -> float:
        """Return the number of tokens from which the batch size follows: those of the run, but at most 8 epochs.

        If a text repeats more often, a batch size for all tokens is too large (`benchmarks/ablations.md`).
        """
        return min(tokens, _BATCH_EPOCHS * self.tokens)

    @property
    def _bytes(self) -> float:
        return self.text_bytes or BYTES_PER_TOKEN * self.tokens

    def _repeats(self, tokens: float) -> bool:
        return tokens >= _MIN_REPEATS * self.tokens

    def _candidates(self, max_tokens: float) -> list[float]:
        """Return numbers of tokens from one epoch to `max_tokens`, which is the first; steps in between are finite."""
        steps = (self.tokens * _STEP**index for index in range(_NUM_STEPS))
        return [max_tokens, *(tokens for tokens in steps if tokens < max_tokens)]

    def _apply(self, predict: Callable[..., T], config: ModelConfig, tokens: float) -> T:
        run = (layer_parameters(config), self._bytes, tokens / self.tokens)
        return predict(*run, weight_decay=self.weight_decay, ppmd=self.ppmd)


def distillation_runs(num_teachers: int) -> float:
    """Return the time for training teachers and then the model, divided by the time without teachers."""
    return 1 + (1 + _TEACHER_COST) * num_teachers


def ppmd_bits_per_byte(text: bytes, held_out: bytes) -> float:
    """Return the bits per byte of held-out text that PPMd has compressed after a sample of the training text.

    PPMd is a simple language model (Shkarin 2002), so the value shows how predictable a text is without training. It is
    comparable between texts only for samples of the same size.

    Args:
        text: Sample of the training text, of `SAMPLE_BYTES` bytes if there is enough text.
        held_out: Sample of other documents, not empty, of `HELD_OUT_SAMPLE_BYTES` bytes if there is enough text.
    """
    import pyppmd

    def size(data: bytes) -> int:
        encoder = pyppmd.Ppmd7Encoder(_PPMD_ORDER, _PPMD_MEMORY)
        return len(encoder.encode(data)) + len(encoder.flush())

    return 8 * max(1, size(text + held_out) - size(text)) / len(held_out)
