"""Compare the predicted time, memory and bits per byte of a pretraining run with the measured values."""

from __future__ import annotations

import gc
import time
from typing import Any

from groundup.core.console import format_count, format_duration
from groundup.kernels.memory import Peak
from groundup.model.flops import (
    COMPILER_BYTES,
    FUSED_IDLE_BYTES,
    IDLE_BYTES,
    fused_training_bytes,
    parameter_count,
    training_bytes,
    weight_bytes,
)
from groundup.train.measurement.prediction_history import Outcome, device_key, remember_run
from groundup.train.planner.forecast import distillation_runs
from groundup.train.planner.plan import OVERHEAD_FRACTION, Plan
from groundup.train.trainer import Trainer

_LOADED_LATER = 10e6  # bytes that a process needs after step 1, such as code and buffers of validation and checkpoints


class OutcomeRecorder:
    """Records the prediction of a run before training, and compares it with the result.

    Args:
        trainer: Trainer of the run.
        plan: Plan of the run.
        began: Time after planning, as a value of `time.monotonic`.
        new: Whether the run is new. The time of a resumed run is unknown.
    """

    def __init__(self, trainer: Trainer[Any, Any], plan: Plan, began: float, *, new: bool) -> None:
        self._trainer, self._plan, self._new = trainer, plan, new
        gc.collect()  # The models that were measured for the plan are in reference cycles.
        self._peak = Peak(trainer.machine.device)
        self._peak.reset()
        self._began = began
        self.predicted = _prediction(trainer, plan, self._peak.now)

    def record(self, bits_per_byte: float) -> dict[str, Any]:
        """Print predicted and measured values, and return them as JSON values. The first rank adds them to the history.

        Args:
            bits_per_byte: Bits per byte of held-out text after training.
        """
        trainer, plan = self._trainer, self._plan
        seconds = time.monotonic() - self._began
        peak, tokens = self._peak.bytes, trainer.progress.tokens_seen
        measured = Outcome(
            seconds=seconds if self._new else None,
            tokens_per_second=tokens * _runs(plan) / seconds if self._new else None,
            memory_bytes=peak if peak > 0 else None,
            bits_per_byte=bits_per_byte,
        )
        if self._new and trainer.run.ranks.first:
            device = device_key(trainer.machine.device, trainer.machine.threads)
            remember_run(device, parameter_count(plan.model), tokens, self.predicted, measured)
        for sentence in _sentences(self.predicted, measured):
            trainer.run.console.note(sentence)
        return {"prediction": {"predicted": self.predicted.to_json(), "measured": measured.to_json()}}


def _prediction(trainer: Trainer[Any, Any], plan: Plan, now: int) -> Outcome:
    speed = plan.tokens_per_second
    value, *interval = plan.bits_per_byte or (None,)
    low_high = (interval[0], interval[1]) if interval else None
    seconds = plan.total_tokens * _runs(plan) / speed if speed else None
    return Outcome(seconds, speed, _peak_bytes(trainer, plan, now), value, low_high)


def _runs(plan: Plan) -> float:
    """Return the time of a run with its teachers, divided by that of its training steps without teachers."""
    return (1 + OVERHEAD_FRACTION) * distillation_runs(plan.num_teachers)


def _peak_bytes(trainer: Trainer[Any, Any], plan: Plan, now: int) -> int:
    """Return an estimate of the peak memory of training in bytes, from the memory in use before step 1."""
    settings, machine, config, rows = trainer.settings, trainer.machine, plan.model, plan.micro_batch_size
    if machine.native and not settings.parallel.activation_checkpointing and trainer.run.ranks.size == 1:
        return fused_training_bytes(
            config,
            rows,
            accumulated=plan.grad_accum_steps > 1,
            matrix_state=4 if plan.optimizer.matrices == "muon" else 8,
            averaged=bool(settings.ema_fraction),
            dropout=bool(plan.dropout),
            idle=now - weight_bytes(config, "float32") + _LOADED_LATER if now > 0 else FUSED_IDLE_BYTES,
        )
    if machine.device != "cpu":
        return training_bytes(config, rows)
    return training_bytes(config, rows) + IDLE_BYTES + (COMPILER_BYTES if machine.compile else 0)


def _sentences(predicted: Outcome, measured: Outcome) -> list[str]:
    parts = []
    for name, show in (
        ("seconds", format_duration),
        ("memory_bytes", lambda value: format_count(value, "bytes")),
        ("bits_per_byte", lambda value: f"{value:.3f} bits per byte"),
    ):
        before, after = getattr(predicted, name), getattr(measured, name)
        if before and after:
            parts.append(f"{show(before)}, measured {show(after)} ({before / after - 1:+.0%})")
    return [f"Predicted: {'; '.join(parts)}."] if parts else []
