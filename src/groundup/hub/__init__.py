"""Model directories: reading, writing, import and export."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.hub.directory import SpecialTokenIds, open_weights, save_classifier, save_model, save_weights
    from groundup.hub.loading import load_classifier, load_model, read_config
    from groundup.hub.model_card import finish_model
    from groundup.hub.training_state import (
        StoredState,
        StoredTensors,
        TrainingState,
        load_newest_state,
        save_state,
    )

__all__ = [
    "SpecialTokenIds",
    "StoredState",
    "StoredTensors",
    "TrainingState",
    "finish_model",
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

__getattr__ = exports(
    __name__,
    {
        "SpecialTokenIds": "directory",
        "StoredState": "training_state",
        "StoredTensors": "training_state",
        "TrainingState": "training_state",
        "finish_model": "model_card",
        "load_classifier": "loading",
        "load_model": "loading",
        "load_newest_state": "training_state",
        "open_weights": "directory",
        "read_config": "loading",
        "save_classifier": "directory",
        "save_model": "directory",
        "save_state": "training_state",
        "save_weights": "directory",
    },
)
