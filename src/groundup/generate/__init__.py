"""Text out of a model: the engine takes requests, runs them side by side and hands out their events."""

from groundup.generate.batch import complete_all
from groundup.generate.engine import Engine
from groundup.generate.grammar import Grammar
from groundup.generate.request import Completion, FinishReason, GenerationRequest, TokenEvent
from groundup.generate.sampling import Sampling

__all__ = [
    "Completion",
    "Engine",
    "FinishReason",
    "GenerationRequest",
    "Grammar",
    "Sampling",
    "TokenEvent",
    "complete_all",
]
