"""One transformer for every family that the ecosystem runs without custom code."""

from groundup.model.cache import BatchCache, KVCache
from groundup.model.classifier import SequenceClassifier
from groundup.model.config import FAMILIES, Family, ModelConfig
from groundup.model.init import init_weights
from groundup.model.operations import Activation, Operations, use_operations
from groundup.model.transformer import Decoder, Transformer

__all__ = [
    "FAMILIES",
    "Activation",
    "BatchCache",
    "Decoder",
    "Family",
    "KVCache",
    "ModelConfig",
    "Operations",
    "SequenceClassifier",
    "Transformer",
    "init_weights",
    "use_operations",
]
