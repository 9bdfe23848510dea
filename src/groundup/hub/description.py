"""Descriptions of a model directory or a GGUF file: its config, stored tensors, tokenizer, and provenance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.artifact import ARTIFACT, read
from groundup.hub.adapted import full_model_directory, read_config
from groundup.hub.gguf import GgufModel
from groundup.hub.resolve import load_tokenizer, resolve_any
from groundup.hub.weight_files import WeightFiles
from groundup.model import ModelConfig
from groundup.tokenizer import TOKENIZER_FILE


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Description of a model on disk, without its weights.

    Attributes:
        config: model config.
        place: path, as JSON values.
        details: `adapter_of`, `stored`, `tokenizer` and `made_by` as JSON values, if available.
    """

    config: ModelConfig
    place: dict[str, Any]
    details: dict[str, Any]


def describe_directory(path: Path) -> ModelDescription:
    """Describe a model directory or a run.

    Args:
        path: directory of a classifier, or see `resolve_model`.

    Returns:
        The description.

    Raises:
        DataError: the directory holds no model.
        FormatError: a damaged model, or an unknown architecture.
    """
    directory = resolve_any(path)
    config, base = read_config(directory), full_model_directory(directory)
    stored = WeightFiles(base)
    details: dict[str, Any] = {"adapter_of": str(base)} if base != directory else {}
    dtypes = Counter(str(stored.dtype(name)).removeprefix("torch.") for name in stored.names)
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
        path: GGUF file.

    Returns:
        The description.

    Raises:
        FormatError: a damaged file, or an unknown architecture.
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
