"""Models and training state on disk."""

from groundup.checkpoint.directory import load_classifier, load_model, save_classifier, save_model
from groundup.checkpoint.state import TrainingState, load_newest_state, save_state

__all__ = [
    "TrainingState",
    "load_classifier",
    "load_model",
    "load_newest_state",
    "save_classifier",
    "save_model",
    "save_state",
]
