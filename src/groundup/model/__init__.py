"""One transformer for the GPT-2, Llama and Qwen3 shapes."""

from groundup.model.cache import KVCache
from groundup.model.classifier import SequenceClassifier
from groundup.model.config import FAMILIES, Family, ModelConfig
from groundup.model.init import init_weights
from groundup.model.transformer import Decoder, Transformer

__all__ = [
    "FAMILIES",
    "Decoder",
    "Family",
    "KVCache",
    "ModelConfig",
    "SequenceClassifier",
    "Transformer",
    "init_weights",
]
