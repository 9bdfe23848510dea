"""Models and training state on disk."""

from groundup.checkpoint.adapted import load_classifier, load_model, read_config
from groundup.checkpoint.directory import open_weights, save_classifier, save_model, save_weights
from groundup.checkpoint.state import StoredState, StoredTensors, TrainingState, load_newest_state, save_state

__all__ = [
    "StoredState",
    "StoredTensors",
    "TrainingState",
    "load_classifier",
    "load_model",
    "load_newest_state",
    "open_weights",
    "read_config",
    "save_classifier",
    "save_model",
    "save_state",
    "save_weights",
]
