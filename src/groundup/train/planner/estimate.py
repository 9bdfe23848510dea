"""Estimate a training run: from some of time, text, size, tokens, quality and budget to all others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from groundup.core.errors import ConfigError
from groundup.model import ModelConfig
from groundup.model.flops import (
    flops_per_token,
    matmul_parameters,
    parameter_count,
    weight_bytes,
)
from groundup.train.planner.forecast import BYTES_PER_TOKEN, Forecast, distillation_runs
from groundup.train.planner.hardware import Hardware
from groundup.train.planner.law import DEFAULT_LAW, WEIGHT_DECAY, Law, LossInterval
from groundup.train.planner.plan import CHINCHILLA_RATIO, batch_rows
from groundup.train.planner.sizes import Sizes

_CHECKPOINT_COPIES = 3  # the model, and the weights and both moments of AdamW in a checkpoint
_MAX_SECONDS = 100 * 365 * 24 * 3600.0
_SEARCH_STEPS = 30
_MAX_DEPTH = 256
_MINUTES = (1, 5, 20, 60, 480)


@dataclass(frozen=True, slots=True)
class PlanTarget:
    """The quantities of a run that the user has set. None is a quantity to estimate.

    Attributes:
        minutes: Training time.
        parameters: Number of parameters.
        tokens: Number of training tokens.
        bits_per_byte: Bits per byte to reach.
        budget_dollars: Dollars to spend on GPUs.
    """

    minutes: float | None = None
    parameters: float | None = None
    tokens: float | None = None
    bits_per_byte: float | None = None
    budget_dollars: float | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Training text.

    Attributes:
        n_bytes: UTF-8 bytes, or None if there is always enough text for one epoch.
        tokens: Number of tokens, or None for 4 bytes per token.
        ppmd: Result of `groundup.train.planner.forecast.ppmd_bits_per_byte`, or None if unknown.
    """

    n_bytes: int | None = None
    tokens: int | None = None
    ppmd: float | None = None

    def bytes_for(self, tokens: float) -> float:
        """Return the UTF-8 bytes of the text, or of new text of `tokens` tokens if the text is not limited."""
        return self.n_bytes or BYTES_PER_TOKEN * tokens

    def forecast(self, tokens: float, law: Law) -> Forecast:
        """Return the forecast for this text, or for new text of `tokens` tokens if the text is not limited."""
        if self.n_bytes is None:
            count = max(1, math.ceil(tokens))
            return Forecast(count, round(self.bytes_for(count)), self.ppmd, law)
        count = self.tokens or max(1, round(self.n_bytes / BYTES_PER_TOKEN))
        return Forecast(count, self.n_bytes, self.ppmd, law)


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated training run.

    Attributes:
        model: Architecture.
        tokens: Number of training tokens.
        epochs: Number of epochs.
        batch_tokens: Number of tokens per step.
        micro_batch_size: Number of rows per micro-batch.
        hardware: Hardware of the run.
        bits_per_byte: Predicted bits per byte of held-out text.
        num_teachers: Number of models with other seeds that are trained first, see `groundup.train.teachers`.
    """

    model: ModelConfig
    tokens: float
    epochs: float
    batch_tokens: int
    micro_batch_size: int
    hardware: Hardware
    bits_per_byte: LossInterval
    num_teachers: int = 0

    @property
    def seconds(self) -> float:
        """Training time in seconds, with that of the teachers."""
        return self.hardware.seconds(self.model, self.tokens) * distillation_runs(self.num_teachers)

    @property
    def flops(self) -> float:
        """FLOPs of the run, 6 per matmul parameter and token (Kaplan et al. 2020, arXiv:2001.08361).

        Each teacher adds as many, and 2 for its probabilities while the model learns.
        """
        return (6.0 + 8.0 * self.num_teachers) * matmul_parameters(self.model) * self.tokens

    @property
    def memory_bytes(self) -> int:
        """Peak memory of training in bytes, on one device."""
        accumulated = self.batch_tokens > self.micro_batch_size * self.model.context_length
        return self.hardware.peak_bytes(self.model, self.micro_batch_size, accumulated=accumulated)

    @property
    def disk_bytes(self) -> int:
        """Size of the model directory and of a checkpoint in bytes."""
        return _CHECKPOINT_COPIES * weight_bytes(self.model, "float32") + weight_bytes(self.model, "float32")

    def to_json(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        cost = self.hardware.cost(self.seconds)
        spread = self.hardware.spread
        return {
            "model": self.model.to_json(),
            "parameters": parameter_count(self.model),
            "matmul_parameters": matmul_parameters(self.model),
            "tokens": round(self.tokens),
            "epochs": self.epochs,
            "batch_tokens": self.batch_tokens,
            "steps": max(1, round(self.tokens / self.batch_tokens)),
            "weight_decay": WEIGHT_DECAY,
            "num_teachers": self.num_teachers,
            "flops": self.flops,
            "flops_with_attention": (1 + 4 / 3 * self.num_teachers) * self.tokens * flops_per_token(self.model),
            "seconds": self.seconds,
            "seconds_interval": [self.seconds / (1 + spread), self.seconds * (1 + spread)],
            "device_hours": self.seconds * self.hardware.count / 3600,
            "hardware": {"name": self.hardware.name, "count": self.hardware.count, "basis": self.hardware.basis},
            "dollars": None if cost is None else list(cost),
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "bits_per_byte": self.bits_per_byte.value,
            "bits_per_byte_interval": [self.bits_per_byte.low, self.bits_per_byte.high],
        }


class Estimator:
    """Estimates training runs on given text and hardware.

    Args:
        shape: Fields of `ModelConfig` that are given, including `family` and `context_length`.
        vocab_size: Vocabulary size.
        text: Training text.
        hardware: Hardware of the run.
        law: Scaling law.
        memory_bytes: Memory for training on one device, or None if it does not limit the size of the model.
    """

    def __init__(
        self,
        shape: Mapping[str, Any],
        vocab_size: int,
        text: Text,
        hardware: Hardware,
        law: Law = DEFAULT_LAW,
        memory_bytes: int | None = None,
    ) -> None:
        self._text = text
        self._hardware = hardware
        self._law = law
        self._sizes = Sizes(vocab_size, shape, text.forecast(1.0, law), None, memory_bytes, _MAX_DEPTH)

    def estimate(self, target: PlanTarget) -> Estimate:
        """Return the run that fits what the user has set.

        Raises:
            ConfigError: The values contradict each other, or cannot be reached.
        """
        minutes = self._minutes(target)
        if target.bits_per_byte is not None:
            if target.tokens is not None:
                raise ConfigError("bits_per_byte and tokens are both set", fix="Remove one of them.")
            found = self._reaching(target.bits_per_byte, target)
            if minutes is not None and found.seconds > 60 * minutes * 1.05:
                raise ConfigError(
                    f"{target.bits_per_byte:g} bits per byte take {found.seconds / 60:,.1f} minutes, but "
                    f"{minutes:,.1f} minutes are available",
                    fix="Omit one of these values, or use a higher target.",
                )
            return found
        if target.tokens is not None:
            config = self._sized(target, lambda _: target.tokens or 0.0, minutes)
            found = self._at(config, target.tokens)
            if minutes is not None and found.seconds > 60 * minutes * 1.05:
                raise ConfigError(
                    f"{target.tokens:,.0f} tokens take {found.seconds / 60:,.1f} minutes with "
                    f"{parameter_count(config):,} parameters, but {minutes:,.1f} minutes are available",
                    fix="Omit one of these values, or choose a smaller model.",
                )
            return found
        if minutes is not None:
            return self._within(60 * minutes, target)
        if target.parameters is not None:
            config = self._closest(target.parameters)
            return self._at(config, self._useful(config, CHINCHILLA_RATIO * matmul_parameters(config)))
        raise ConfigError(
            "minutes, parameters, tokens, bits per byte and budget are all unset",
            fix="Set one of them, e.g. --minutes 10.",
        )

    def by_minutes(self) -> list[Estimate]:
        """Return the best run for several training times, which shows what more time would bring.

        Times that would not make the run longer are left out.
        """
        runs: list[Estimate] = []
        for minutes in _MINUTES:
            run = self._within(60 * minutes, PlanTarget())
            if not runs or run.seconds > runs[-1].seconds:
                runs.append(run)
        return runs

    def _minutes(self, target: PlanTarget) -> float | None:
        """Return the available time, from the time or the budget that the user has set."""
        if target.budget_dollars is None:
            return target.minutes
        if self._hardware.price is None:
            raise ConfigError("budget_dollars is set without a GPU", fix="Add --gpu, e.g. --gpu h100.")
        paid = target.budget_dollars / self._hardware.price[1] / self._hardware.count * 60
        return paid if target.minutes is None else min(paid, target.minutes)

    def _within(self, seconds: float, target: PlanTarget) -> Estimate:
        """Return the best run in a time."""

        def tokens(config: ModelConfig) -> float:
            return self._hardware.tokens(config, seconds)

        teaches = self._hardware.count == 1
        config = self._closest(target.parameters) if target.parameters else self._best(tokens, teaches=teaches)
        affordable = tokens(config)
        if teaches:
            return self._at(config, *self._text.forecast(affordable, self._law).with_teachers(config, affordable))
        return self._at(config, self._useful(config, affordable))

    def _reaching(self, bits_per_byte: float, target: PlanTarget) -> Estimate:
        """Return the shortest run with at most `bits_per_byte` bits per byte."""
        low, high = math.log(0.1), math.log(_MAX_SECONDS)
        best = self._within(_MAX_SECONDS, target)
        if best.bits_per_byte.value > bits_per_byte:
            raise ConfigError(
                f"{bits_per_byte:g} bits per byte cannot be reached: the best prediction is "
                f"{best.bits_per_byte.value:.3f}, with {parameter_count(best.model):,} parameters "
                f"and {best.epochs:,.1f} epochs",
                fix="Use more text, or a higher target.",
            )
        for _ in range(_SEARCH_STEPS):
            middle = (low + high) / 2
            if self._within(math.exp(middle), target).bits_per_byte.value <= bits_per_byte:
                high = middle
            else:
                low = middle
        return self._within(math.exp(high), target)

    def _sized(self, target: PlanTarget, tokens: Callable[[ModelConfig], float], minutes: float | None) -> ModelConfig:
        """Return the architecture for a number of tokens."""
        if target.parameters is not None:
            return self._closest(target.parameters)
        if minutes is None:
            return self._best(tokens, same_compute=True)
        fitting = [
            config
            for config in self._sizes.shapes.values()
            if self._hardware.seconds(config, tokens(config)) <= 60 * minutes
        ]
        return max(fitting, key=parameter_count, default=self._sizes.shape(2))

    def _best(
        self, tokens: Callable[[ModelConfig], float], *, same_compute: bool = False, teaches: bool = False
    ) -> ModelConfig:
        """Return the best architecture for a number of tokens that depends on it."""
        if same_compute:
            config = self._sizes.shape(2)
            for larger in self._sizes.shapes.values():
                compute = tokens(larger) * flops_per_token(larger)
                if parameter_count(self._best(lambda c, f=compute: f / flops_per_token(c))) < parameter_count(larger):  # type: ignore[misc]
                    break
                config = larger
            return config

        def predicted(config: ModelConfig) -> float:
            affordable = tokens(config)
            return self._text.forecast(affordable, self._law).best_bits_per_byte(config, affordable, teaches=teaches)

        return min(self._sizes.shapes.values(), key=predicted)

    def _closest(self, parameters: float) -> ModelConfig:
        """Return the architecture whose number of parameters is closest."""
        return min(self._sizes.shapes.values(), key=lambda c: abs(math.log(parameter_count(c) / parameters)))

    def _useful(self, config: ModelConfig, tokens: float) -> float:
        return self._text.forecast(tokens, self._law).useful_tokens(config, tokens)

    def _at(self, config: ModelConfig, tokens: float, num_teachers: int = 0) -> Estimate:
        forecast = self._text.forecast(tokens, self._law)
        epochs = tokens / forecast.tokens
        micro, accum = batch_rows(forecast.batch_size_tokens(tokens), config.context_length)
        return Estimate(
            model=config,
            tokens=tokens,
            epochs=epochs,
            batch_tokens=micro * accum * config.context_length,
            micro_batch_size=micro,
            hardware=self._hardware,
            bits_per_byte=forecast.interval(config, tokens, distilled=num_teachers > 0),
            num_teachers=num_teachers,
        )
