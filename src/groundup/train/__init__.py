"""The training loop, its callbacks, checkpoints and planning."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.callbacks.keep_best import KeepBest
    from groundup.train.callbacks.progress import (
        AtFractions,
        EverySeconds,
        MetricsLog,
        ShowProgress,
        Speed,
        logs_in,
        require_logs,
    )
    from groundup.train.callbacks.samples import SAMPLES, SampleLog
    from groundup.train.callbacks.time_limit import TimeLimit
    from groundup.train.callbacks.trackers import open_tracker
    from groundup.train.checkpoints import Checkpoints
    from groundup.train.fit import Callback, Progress, StepReport, diverged, steps_per_second
    from groundup.train.guard import SpikeGuard
    from groundup.train.measurement.machine import measured_machine, with_measured_kernels
    from groundup.train.measurement.memory_probe import find_max_rows
    from groundup.train.measurement.step_cost import StepCost, measure_steps
    from groundup.train.prefetch import Prefetch
    from groundup.train.run import TrainingRun, training_run
    from groundup.train.settings import ParallelConfig, TrainingSettings
    from groundup.train.trainer import Evaluation, Selection, Trainer, TrainingSteps

__all__ = [
    "SAMPLES",
    "AtFractions",
    "Callback",
    "Checkpoints",
    "Evaluation",
    "EverySeconds",
    "KeepBest",
    "MetricsLog",
    "ParallelConfig",
    "Prefetch",
    "Progress",
    "SampleLog",
    "Selection",
    "ShowProgress",
    "Speed",
    "SpikeGuard",
    "StepCost",
    "StepReport",
    "TimeLimit",
    "Trainer",
    "TrainingRun",
    "TrainingSettings",
    "TrainingSteps",
    "diverged",
    "find_max_rows",
    "logs_in",
    "measure_steps",
    "measured_machine",
    "open_tracker",
    "require_logs",
    "steps_per_second",
    "training_run",
    "with_measured_kernels",
]

__getattr__ = exports(
    __name__,
    {
        "SAMPLES": "callbacks.samples",
        "AtFractions": "callbacks.progress",
        "Callback": "fit",
        "Checkpoints": "checkpoints",
        "Evaluation": "trainer",
        "EverySeconds": "callbacks.progress",
        "KeepBest": "callbacks.keep_best",
        "MetricsLog": "callbacks.progress",
        "TimeLimit": "callbacks.time_limit",
        "ParallelConfig": "settings",
        "Prefetch": "prefetch",
        "Progress": "fit",
        "StepCost": "measurement.step_cost",
        "SampleLog": "callbacks.samples",
        "Selection": "trainer",
        "ShowProgress": "callbacks.progress",
        "Speed": "callbacks.progress",
        "SpikeGuard": "guard",
        "StepReport": "fit",
        "Trainer": "trainer",
        "TrainingRun": "run",
        "TrainingSettings": "settings",
        "TrainingSteps": "trainer",
        "diverged": "fit",
        "find_max_rows": "measurement.memory_probe",
        "logs_in": "callbacks.progress",
        "open_tracker": "callbacks.trackers",
        "measure_steps": "measurement.step_cost",
        "measured_machine": "measurement.machine",
        "with_measured_kernels": "measurement.machine",
        "require_logs": "callbacks.progress",
        "steps_per_second": "fit",
        "training_run": "run",
    },
)
