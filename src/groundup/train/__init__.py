"""The one training loop and what happens between its steps."""

from groundup.train.best import KeepBest
from groundup.train.callbacks import AtFractions, EverySeconds, MetricsLog, ShowProgress, Speed, logs_in, require_logs
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Callback, fit, steps_per_second
from groundup.train.guard import SpikeGuard, diverged
from groundup.train.pace import Pace
from groundup.train.prefetch import Prefetch
from groundup.train.probe import fitting_rows
from groundup.train.rehearsal import Rehearsal, rehearse
from groundup.train.samples import SAMPLES, SampleLog
from groundup.train.state import Progress, StepReport
from groundup.train.trackers import open_tracker

__all__ = [
    "SAMPLES",
    "AtFractions",
    "Callback",
    "Checkpoints",
    "EverySeconds",
    "KeepBest",
    "MetricsLog",
    "Pace",
    "Prefetch",
    "Progress",
    "Rehearsal",
    "SampleLog",
    "ShowProgress",
    "Speed",
    "SpikeGuard",
    "StepReport",
    "diverged",
    "fit",
    "fitting_rows",
    "logs_in",
    "open_tracker",
    "rehearse",
    "require_logs",
    "steps_per_second",
]
