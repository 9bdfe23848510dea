"""The transformer, with one implementation for all supported model families."""

from typing import TYPE_CHECKING

from groundup.core.lazy import exports

if TYPE_CHECKING:
    from groundup.model.cache import BatchCache, KVCache
    from groundup.model.classifier import SequenceClassifier
    from groundup.model.config import ModelConfig
    from groundup.model.families import FAMILIES, Family
    from groundup.model.families.base import Activation
    from groundup.model.init import init_weights
    from groundup.model.operations import Operations, use_operations
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

__getattr__ = exports(
    __name__,
    {
        "FAMILIES": "families",
        "Activation": "families.base",
        "BatchCache": "cache",
        "Decoder": "transformer",
        "Family": "families",
        "KVCache": "cache",
        "ModelConfig": "config",
        "Operations": "operations",
        "SequenceClassifier": "classifier",
        "Transformer": "transformer",
        "init_weights": "init",
        "use_operations": "operations",
    },
)
