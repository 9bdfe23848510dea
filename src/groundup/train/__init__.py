"""The one training loop and what happens between its steps."""

from groundup.train.callbacks import AtFractions, EverySeconds, MetricsLog, ShowProgress
from groundup.train.checkpoints import Checkpoints
from groundup.train.fit import Callback, fit, steps_per_second
from groundup.train.state import Progress, StepReport

__all__ = [
    "AtFractions",
    "Callback",
    "Checkpoints",
    "EverySeconds",
    "MetricsLog",
    "Progress",
    "ShowProgress",
    "StepReport",
    "fit",
    "steps_per_second",
]
