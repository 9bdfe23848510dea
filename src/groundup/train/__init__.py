"""The one training loop and what happens between its steps."""

from groundup.train.callbacks import AtFractions, EverySeconds, MetricsLog, ShowProgress
from groundup.train.fit import Callback, fit
from groundup.train.state import Progress, StepReport

__all__ = [
    "AtFractions",
    "Callback",
    "EverySeconds",
    "MetricsLog",
    "Progress",
    "ShowProgress",
    "StepReport",
    "fit",
]
