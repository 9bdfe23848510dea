"""Inference: the engine runs concurrent generation requests and streams their events."""

from groundup.inference.batch import complete_all
from groundup.inference.engine import Engine
from groundup.inference.grammar import Grammar
from groundup.inference.request import Completion, FinishReason, GenerationRequest, TokenEvent
from groundup.inference.runner import make_runner
from groundup.inference.sampling import Sampling

__all__ = [
    "Completion",
    "Engine",
    "FinishReason",
    "GenerationRequest",
    "Grammar",
    "Sampling",
    "TokenEvent",
    "complete_all",
    "make_runner",
]
