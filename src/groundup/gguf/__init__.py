"""GGUF, the file format of llama.cpp: models in and out."""

from groundup.gguf.container import GgufFile
from groundup.gguf.header import MetaValue, TensorInfo
from groundup.gguf.hyperparameters import agreed_length
from groundup.gguf.mixture import Fallback
from groundup.gguf.reading import GgufModel
from groundup.gguf.types import FILE_TYPES, FileType
from groundup.gguf.vocabulary_export import GgufVocabulary, tokenizer_to_gguf
from groundup.gguf.vocabulary_import import TokenizerFiles, tokenizer_from_gguf
from groundup.gguf.writing import WrittenGguf, write_gguf

__all__ = [
    "FILE_TYPES",
    "Fallback",
    "FileType",
    "GgufFile",
    "GgufModel",
    "GgufVocabulary",
    "MetaValue",
    "TensorInfo",
    "TokenizerFiles",
    "WrittenGguf",
    "agreed_length",
    "tokenizer_from_gguf",
    "tokenizer_to_gguf",
    "write_gguf",
]
