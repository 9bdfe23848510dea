"""A model directory is a Hugging Face model directory: what is written here, transformers and vLLM load as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from groundup.checkpoint.families import (
    Head,
    from_their_config,
    from_their_weights,
    to_their_config,
    to_their_weights,
)
from groundup.checkpoint.state import read_tensors
from groundup.errors import FormatError
from groundup.files import atomic_file, read_json, write_json
from groundup.model import ModelConfig, SequenceClassifier, Transformer

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"


def save_model(
    directory: Path,
    model: Transformer,
    *,
    bos_id: int,
    eos_id: int,
    pad_id: int | None = None,
    stop_ids: Sequence[int] = (),
) -> list[Path]:
    """Write config, weights (fp32) and generation config; the tokenizer writes its own files beside them.

    Args:
        stop_ids: the tokens that end what the model writes, where that is not `eos_id` alone.

    Returns:
        The files written.
    """
    ids: dict[str, Any] = {"bos_token_id": bos_id, "eos_token_id": eos_id, "pad_token_id": pad_id}
    files = _write(directory, model, model.config, "language", ids)
    write_json(directory / GENERATION_CONFIG, ids | ({"eos_token_id": list(stop_ids)} if stop_ids else {}))
    return [*files, directory / GENERATION_CONFIG]


def save_classifier(
    directory: Path, model: SequenceClassifier, labels: Sequence[str], *, bos_id: int, eos_id: int, pad_id: int
) -> list[Path]:
    """Write a classifier as transformers' `*ForSequenceClassification`: config with the labels' names, and weights.

    Args:
        labels: the name of each label, by its index.
        pad_id: how transformers finds the last token of a padded text.

    Returns:
        The files written.
    """
    keys: dict[str, Any] = {
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "problem_type": _ONE_LABEL_A_TEXT,
        "num_labels": len(labels),
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    return _write(directory, model, model.config, "labels", keys)


def read_config(directory: Path) -> ModelConfig:
    """The shape of the model in a directory, from its `config.json` alone.

    Raises:
        FormatError: no model there, or another architecture.
    """
    return _read_config(directory)[0]


def load_model(directory: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Transformer:
    """Read the directory of a language model, ready for inference.

    Raises:
        FormatError: no model there, a pickle instead of safetensors, another architecture, a damaged file.
    """
    config, _ = _read_config(directory)
    weights = from_their_weights(config, read_tensors(directory / WEIGHTS))
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(_moved(weights, device, dtype), assign=True)
    if config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.to(device).eval().requires_grad_(False)


def load_classifier(
    directory: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """Read the directory of a classifier, ours or of transformers, ready for inference; with the names of its labels.

    Raises:
        FormatError: as `load_model`; or a head that does not give one label a text.
    """
    config, theirs = _read_config(directory)
    labels = _labels(theirs)
    weights = from_their_weights(config, read_tensors(directory / WEIGHTS), "labels")
    if len(weights["score.weight"]) != len(labels):
        raise FormatError(
            f"{directory / CONFIG}: names of {len(labels)} labels",
            rule=f"the head scores {len(weights['score.weight'])} labels",
            fix="The files do not belong together; get the model again.",
        )
    with torch.device("meta"):
        model = SequenceClassifier(config, len(labels))
    model.load_state_dict(_moved(weights, device, dtype), assign=True)
    return model.to(device).eval().requires_grad_(False), labels


_ONE_LABEL_A_TEXT = "single_label_classification"


def _labels(theirs: Mapping[str, Any]) -> tuple[str, ...]:
    # transformers leaves out what equals its defaults: two labels with these names.
    named = theirs.get("id2label") or {str(index): f"LABEL_{index}" for index in range(theirs.get("num_labels", 2))}
    kind = theirs.get("problem_type") or _ONE_LABEL_A_TEXT
    if kind != _ONE_LABEL_A_TEXT or len(named) < 2:
        raise FormatError(
            f"problem_type = {kind!r}, {len(named)} labels",
            rule="groundup reads classifiers that choose one of two or more labels",
            fix="Choose another model.",
        )
    if set(named) != {str(index) for index in range(len(named))}:
        raise FormatError(
            f"id2label with the ids {', '.join(list(named)[:8])}",
            rule="labels are numbered from 0 without a gap",
            fix="Correct config.json.",
        )
    return tuple(str(named[str(index)]) for index in range(len(named)))


def _write(directory: Path, model: nn.Module, config: ModelConfig, head: Head, keys: Mapping[str, Any]) -> list[Path]:
    ours = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    with atomic_file(directory / WEIGHTS) as temporary:
        save_file(to_their_weights(config, ours, head), temporary, metadata={"format": "pt"})
    write_json(directory / CONFIG, to_their_config(config, head) | dict(keys))
    return [directory / WEIGHTS, directory / CONFIG]


def _read_config(directory: Path) -> tuple[ModelConfig, dict[str, Any]]:
    if not (directory / CONFIG).is_file() or not (directory / WEIGHTS).is_file():
        pickles = sorted(path.name for path in directory.glob("*.bin"))
        raise FormatError(
            f"{directory}: " + (f"{pickles[0]} is a pickle" if pickles else f"no {CONFIG} and {WEIGHTS} in it"),
            rule="a model directory holds safetensors; pickles can run foreign code and are never loaded",
            fix="Give the directory that groundup wrote, or save the model as safetensors first.",
        )
    theirs = dict(read_json(directory / CONFIG))
    return from_their_config(theirs), theirs


def _moved(weights: Mapping[str, Tensor], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(device, dtype) for name, tensor in weights.items()}
