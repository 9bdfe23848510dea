"""Models and training state on disk."""

from groundup.checkpoint.directory import load_model, save_model
from groundup.checkpoint.state import TrainingState, load_newest_state, save_state

__all__ = ["TrainingState", "load_model", "load_newest_state", "save_model", "save_state"]
