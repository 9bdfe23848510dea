"""GGUF, the file format of llama.cpp: models in and out."""

from groundup.gguf.container import GgufFile
from groundup.gguf.header import MetaValue, TensorInfo

__all__ = ["GgufFile", "MetaValue", "TensorInfo"]
