"""Description of a model directory or a GGUF file: model config, stored tensors, tokenizer, and provenance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.artifact import ARTIFACT, read
from groundup.hub.adapted import full_model_directory
from groundup.hub.gguf import GgufModel
from groundup.hub.loading import load_tokenizer, read_config
from groundup.hub.resolve import resolve_any
from groundup.hub.weight_files import WeightFiles
from groundup.model import ModelConfig
from groundup.tokenizer import TOKENIZER_FILE

_TYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I32": "int32", "I8": "int8"}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Description of a model on disk.

    Attributes:
        config: model config.
        place: path and name of the model, as JSON values.
        details: JSON values of the keys `adapter_of`, `stored`, `tokenizer` and `made_by`. A key is omitted if its
            value is not available.
    """

    config: ModelConfig
    place: dict[str, Any]
    details: dict[str, Any]


def describe_directory(path: Path) -> ModelDescription:
    """Describe a model directory or a run.

    Args:
        path: directory of a classifier, or a path that `resolve_model` accepts.

    Returns:
        The description of the model.

    Raises:
        DataError: the directory does not contain a model.
        FormatError: the model is damaged, or its architecture is unknown.
    """
    directory = resolve_any(path)
    config, base = read_config(directory), full_model_directory(directory)
    stored = WeightFiles(base)
    details: dict[str, Any] = {"adapter_of": str(base)} if base != directory else {}
    dtypes = Counter(_TYPE_NAMES.get(stored.type_name(name), stored.type_name(name)) for name in stored.names)
    details["stored"] = {"bytes": stored.bytes, "tensors": dict(dtypes)}
    if (directory / TOKENIZER_FILE).is_file() or base != directory:
        tokenizer = load_tokenizer(directory)
        details["tokenizer"] = {
            "kind": tokenizer.definition["model"]["type"],
            "vocab_size": tokenizer.vocab_size,
            "begins_with_bos": tokenizer.adds_bos,
            "stop_ids": list(tokenizer.stop_ids),
            "chat_template": tokenizer.chat_template is not None,
        }
    if (directory / ARTIFACT).is_file():
        made = read(directory)
        details["made_by"] = {
            "stage": made.stage,
            "finished_at": made.finished_at,
            "seconds": made.seconds,
            "inputs": made.inputs,
            "base": made.facts.get("base"),
            "tokens_seen": made.facts.get("tokens_seen"),
            "groundup": made.versions.get("groundup"),
        }
    return ModelDescription(config, {"directory": str(directory)}, details)


def describe_gguf(path: Path) -> ModelDescription:
    """Describe the model in a GGUF file.

    Args:
        path: path of the GGUF file.

    Returns:
        The description of the model.

    Raises:
        FormatError: the file is damaged, or the architecture of the model is unknown.
    """
    model = GgufModel(path)
    tokens = model.metadata.get("tokenizer.ggml.tokens", [])
    details = {
        "stored": {"bytes": path.stat().st_size, "tensors": dict(Counter(model.types.values()))},
        "tokenizer": {
            "kind": model.metadata.get("tokenizer.ggml.model"),
            "vocab_size": len(tokens) if isinstance(tokens, list) else None,
            "chat_template": "tokenizer.chat_template" in model.metadata,
        },
    }
    return ModelDescription(model.config, {"file": str(path), "name": model.name}, details)
