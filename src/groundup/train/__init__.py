"""The training loop and what happens between its steps."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.train.best import KeepBest
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
    from groundup.train.pace import Pace
    from groundup.train.prefetch import Prefetch
    from groundup.train.probe import fitting_rows
    from groundup.train.rehearsal import Rehearsal, rehearse
    from groundup.train.run import TrainingRun, training_run
    from groundup.train.samples import SAMPLES, SampleLog
    from groundup.train.settings import ParallelConfig, TrainingSettings
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
    "Pace",
    "ParallelConfig",
    "Prefetch",
    "Progress",
    "Rehearsal",
    "SampleLog",
    "Selection",
    "ShowProgress",
    "Speed",
    "SpikeGuard",
    "StepReport",
    "Trainer",
    "TrainingRun",
    "TrainingSettings",
    "TrainingSteps",
    "diverged",
    "fitting_rows",
    "logs_in",
    "open_tracker",
    "rehearse",
    "require_logs",
    "steps_per_second",
    "training_run",
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
        "KeepBest": "best",
        "MetricsLog": "callbacks",
        "Pace": "pace",
        "ParallelConfig": "settings",
        "Prefetch": "prefetch",
        "Progress": "fit",
        "Rehearsal": "rehearsal",
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
        "fitting_rows": "probe",
        "logs_in": "callbacks",
        "open_tracker": "trackers",
        "rehearse": "rehearsal",
        "require_logs": "callbacks",
        "steps_per_second": "fit",
        "training_run": "run",
    },
)
