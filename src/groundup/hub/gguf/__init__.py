"""GGUF, the file format of llama.cpp: import and export."""

from groundup.hub.gguf.container import GgufFile
from groundup.hub.gguf.header import MetaValue, TensorInfo
from groundup.hub.gguf.hyperparameters import agreed_length
from groundup.hub.gguf.mixture import Fallback
from groundup.hub.gguf.reading import GgufModel, open_gguf
from groundup.hub.gguf.types import FILE_TYPES, FileType
from groundup.hub.gguf.vocabulary_export import GgufVocabulary, tokenizer_to_gguf
from groundup.hub.gguf.vocabulary_import import TokenizerFiles, tokenizer_from_gguf
from groundup.hub.gguf.writing import WrittenGguf, write_gguf

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
    "open_gguf",
    "tokenizer_from_gguf",
    "tokenizer_to_gguf",
    "write_gguf",
]
