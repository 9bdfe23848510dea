"""The training loop, its callbacks, checkpoints and planning."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.callbacks import (
        AtFractions,
        EverySeconds,
        MetricsLog,
        ShowProgress,
        Speed,
        logs_in,
        require_logs,
    )
    from groundup.train.checkpoints import Checkpoints
    from groundup.train.fit import Callback, Progress, StepReport, diverged, steps_per_second
    from groundup.train.guard import SpikeGuard
    from groundup.train.keep_best import KeepBest
    from groundup.train.machine import measured_machine, with_measured_kernels
    from groundup.train.memory_probe import find_max_rows
    from groundup.train.prefetch import Prefetch
    from groundup.train.run import TrainingRun, training_run
    from groundup.train.samples import SAMPLES, SampleLog
    from groundup.train.settings import ParallelConfig, TrainingSettings
    from groundup.train.step_cost import StepCost, measure_steps
    from groundup.train.time_limit import TimeLimit
    from groundup.train.trackers import open_tracker
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
        "SAMPLES": "samples",
        "AtFractions": "callbacks",
        "Callback": "fit",
        "Checkpoints": "checkpoints",
        "Evaluation": "trainer",
        "EverySeconds": "callbacks",
        "KeepBest": "keep_best",
        "MetricsLog": "callbacks",
        "TimeLimit": "time_limit",
        "ParallelConfig": "settings",
        "Prefetch": "prefetch",
        "Progress": "fit",
        "StepCost": "step_cost",
        "SampleLog": "samples",
        "Selection": "trainer",
        "ShowProgress": "callbacks",
        "Speed": "callbacks",
        "SpikeGuard": "guard",
        "StepReport": "fit",
        "Trainer": "trainer",
        "TrainingRun": "run",
        "TrainingSettings": "settings",
        "TrainingSteps": "trainer",
        "diverged": "fit",
        "find_max_rows": "memory_probe",
        "logs_in": "callbacks",
        "open_tracker": "trackers",
        "measure_steps": "step_cost",
        "measured_machine": "machine",
        "with_measured_kernels": "machine",
        "require_logs": "callbacks",
        "steps_per_second": "fit",
        "training_run": "run",
    },
)
