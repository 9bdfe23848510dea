"""Model directories in the Hugging Face format. transformers and vLLM can load these directories without conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.errors import FormatError
from groundup.core.files import read_json, write_json
from groundup.hub.compressed_tensors import read_scheme
from groundup.hub.config_json import read_config_json, to_config_json
from groundup.hub.families import Head
from groundup.hub.stored_weights import StoredWeights, write_stored
from groundup.hub.weight_files import SHARD_BYTES, is_gguf, require_no_pickle
from groundup.model import ModelConfig, SequenceClassifier, Transformer
from groundup.model.layers import Linear
from groundup.model.weight_map import EMBEDDING, HEAD

CONFIG = "config.json"
CONFIG_BYTES = 10_000_000  # Maximum size of config.json. A typical config has 2 kB, but a list of labels may be long.
GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class SpecialTokenIds:
    """Ids of special tokens in `config.json` and `generation_config.json`.

    Attributes:
        bos_id: id of the BOS token.
        eos_id: id of the EOS token.
        pad_id: id of the padding token.
        stop_ids: ids of all tokens that end generation. If empty, only `eos_id` ends generation.
    """

    bos_id: int | None
    eos_id: int
    pad_id: int | None = None
    stop_ids: Sequence[int] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the ids with the key names of `config.json`."""
        return {"bos_token_id": self.bos_id, "eos_token_id": self.eos_id, "pad_token_id": self.pad_id}


def save_model(
    directory: Path,
    model: Transformer,
    *,
    bos_id: int,
    eos_id: int,
    pad_id: int | None = None,
    stop_ids: Sequence[int] = (),
) -> list[Path]:
    """Write a language model; see `save_weights`.

    Args:
        directory: output directory.
        model: language model.
        bos_id: id of the BOS token.
        eos_id: id of the EOS token.
        pad_id: id of the padding token.
        stop_ids: ids of all tokens that end generation. If empty, only `eos_id` ends generation.

    Returns:
        The files written.

    Raises:
        FormatError: the model has additional tensors, such as adapters that were not merged.
        ResourceError: there is not enough disk space.
    """
    return save_weights(directory, model.config, model.state_dict(), SpecialTokenIds(bos_id, eos_id, pad_id, stop_ids))


def save_weights(
    directory: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    special: SpecialTokenIds,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write the config, the weights and the generation config of a language model. The tokenizer is not written.

    Args:
        directory: output directory.
        config: model config.
        weights: state dict of `Transformer`, or a lazy mapping from names to tensors. Each tensor is accessed once, and
            at most one shard is held in memory.
        special: ids of special tokens.
        dtype: data type of all written weights. Default: each tensor keeps its data type.
        shard_bytes: maximum size of a weight file in bytes. A larger model is written as several shards with an index.

    Returns:
        The files written.

    Raises:
        FormatError: a tensor that `config` requires is missing, or there are additional tensors, such as adapters that
            were not merged.
        ResourceError: there is not enough disk space.
    """
    files = _write(directory, config, weights, "language", special.to_json(), shard_bytes, dtype)
    return [*files, save_generation_config(directory, special)]


def save_generation_config(directory: Path, special: SpecialTokenIds) -> Path:
    """Write `generation_config.json` with the ids of BOS, padding, and the tokens that end generation."""
    ends = {"eos_token_id": list(special.stop_ids)} if special.stop_ids else {}
    write_json(directory / GENERATION_CONFIG, special.to_json() | ends)
    return directory / GENERATION_CONFIG


def save_classifier(
    directory: Path, model: SequenceClassifier, labels: Sequence[str], *, bos_id: int, eos_id: int, pad_id: int
) -> list[Path]:
    """Write the config (with label names) and the weights of a classifier.

    transformers loads the directory as a `*ForSequenceClassification` model.

    Args:
        directory: output directory.
        model: classifier.
        labels: label names, sorted by label index.
        bos_id: id of the BOS token.
        eos_id: id of the EOS token.
        pad_id: id of the padding token. transformers needs it to find the last token of a padded text.

    Returns:
        The files written.
    """
    keys: dict[str, Any] = {
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "problem_type": _MULTI_LABEL if model.multi_label else _SINGLE_LABEL,
        "num_labels": len(labels),
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    return _write(directory, model.config, model.state_dict(), "labels", keys, SHARD_BYTES)


def load_full_model(
    directory: Path, *, dtype: torch.dtype | None = torch.float32, device: str | torch.device = "cpu"
) -> Transformer:
    """Load a language model for inference. The directory must contain a full model, not an adapter.

    On a CPU, tensors that are stored in the requested dtype are memory-mapped. Other tensors are converted one at a
    time, so that peak memory is only slightly larger than the weights.

    Args:
        directory: model directory or GGUF file.
        dtype: data type of the loaded weights. If None, the weights keep their stored data type or quantization, and
            activations are fp32.
        device: device of the weights.

    Returns:
        The model, in eval mode and frozen.

    Raises:
        FormatError: the directory does not contain a model, the weights are pickles, the architecture is unknown, or a
            file is damaged.
    """
    if is_gguf(directory):
        return _load_gguf(directory, dtype, device)
    stored = open_weights(directory)
    with torch.device("meta"):
        model = Transformer(stored.config)
    _fill(model, stored, dtype, device)
    if stored.config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    if dtype is None:
        model.model.compute_dtype = torch.float32
    return model.to(device).eval().requires_grad_(False)


def _load_gguf(path: Path, dtype: torch.dtype | None, device: str | torch.device) -> Transformer:
    from groundup.hub.gguf import open_gguf  # slow to import

    stored = open_gguf(path)
    if dtype is None:
        return stored.as_stored().to(device)
    with torch.device("meta"):
        model = Transformer(stored.config)
    state = stored.state(dtype)
    model.load_state_dict({name: state[name].to(device) for name in state}, assign=True)
    if stored.config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.to(device).eval().requires_grad_(False)


def load_full_classifier(
    directory: Path, *, dtype: torch.dtype | None = torch.float32, device: str | torch.device = "cpu"
) -> tuple[SequenceClassifier, tuple[str, ...]]:
    """Load a classifier for inference that groundup or transformers wrote. Return the classifier and the label names.

    Raises:
        FormatError: for the same reasons as in `load_full_model`, or the model does not have a classification head.
    """
    raw = _read_json(directory)
    config, (labels, multi_label) = read_config_json(raw), read_labels(raw)
    stored = StoredWeights(directory, config, len(labels), read_scheme(raw))
    with torch.device("meta"):
        model = SequenceClassifier(config, len(labels), multi_label=multi_label)
    _fill(model, stored, dtype, device)
    return model.to(device).eval().requires_grad_(False), labels


def open_weights(directory: Path) -> StoredWeights:
    """Open the memory-mapped weights of a language model under groundup's parameter names.

    Args:
        directory: model directory.

    Returns:
        A mapping from names to tensors, with the model config as attribute `config`.

    Raises:
        FormatError: for the same reasons as in `load_full_model`.
    """
    raw = _read_json(directory)
    return StoredWeights(directory, read_config_json(raw), scheme=read_scheme(raw))


def read_full_config(directory: Path) -> ModelConfig:
    """Return the config of a model directory or GGUF file without reading weights.

    Raises:
        FormatError: `config.json` does not exist, the architecture is unknown, or sizes are invalid.
    """
    if is_gguf(directory):
        from groundup.hub.gguf import open_gguf

        return open_gguf(directory).config
    return read_config_json(_read_json(directory))


def _read_json(directory: Path) -> dict[str, Any]:
    require_no_pickle(directory)
    path = directory / CONFIG
    if not path.is_file():
        raise FormatError(
            f"{directory}: {CONFIG} does not exist",
            rule="a model directory contains a config and weights (safetensors)",
            fix="Give a directory that groundup wrote, or a Hugging Face model directory.",
        )
    raw = read_json(path, max_bytes=CONFIG_BYTES)
    if not isinstance(raw, dict):
        raise FormatError(f"{path}: not a JSON object", fix="Download the model again.")
    return raw


def _fill(model: nn.Module, stored: StoredWeights, dtype: torch.dtype | None, device: str | torch.device) -> None:
    tensors: dict[str, Tensor] = {}
    for name in stored:
        if name == HEAD and stored.tied:
            continue
        layer = model.get_submodule(name.rpartition(".")[0])
        quantized = stored.quantized(name) if dtype is None and isinstance(layer, Linear) else None
        if quantized is None:
            tensors[name] = stored.load(name, dtype, device)
        else:
            layer.quantized, layer.weight = quantized, None  # type: ignore[assignment]
            tensors |= {f"{name.rpartition('.')[0]}.quantized.{key}": each for key, each in quantized.named_buffers()}
    if stored.tied:  # The tensor is shared, because a copy for a large vocabulary would take half a gigabyte.
        tensors[HEAD] = tensors[EMBEDDING]
    model.load_state_dict(tensors, assign=True)


def _write(
    directory: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    head: Head,
    keys: Mapping[str, Any],
    shard_bytes: int,
    dtype: torch.dtype | None = None,
) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    files = write_stored(directory, config, weights, head, dtype=dtype, shard_bytes=shard_bytes)
    named = str(dtype or weights[EMBEDDING].dtype).removeprefix("torch.")
    write_json(directory / CONFIG, to_config_json(config, head, named) | dict(keys))
    return [*files, directory / CONFIG]


_SINGLE_LABEL, _MULTI_LABEL = "single_label_classification", "multi_label_classification"


def read_labels(raw: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Return the label names of a classifier, and whether it is multi-label.

    Args:
        raw: Content of its config.json.

    Raises:
        FormatError: The labels are not supported.
    """
    # transformers omits the default value of `id2label`, which is LABEL_0 and LABEL_1.
    named = raw.get("id2label") or {str(index): f"LABEL_{index}" for index in range(raw.get("num_labels", 2))}
    kind = raw.get("problem_type") or _SINGLE_LABEL
    if kind not in (_SINGLE_LABEL, _MULTI_LABEL) or len(named) < 2:
        raise FormatError(
            f"problem_type = {kind!r}, {len(named)} labels",
            rule="groundup supports classification with at least two labels",
            fix="Choose another model.",
        )
    if set(named) != {str(index) for index in range(len(named))}:
        raise FormatError(
            f"id2label has the ids {', '.join(list(named)[:8])}",
            rule="labels must be numbered consecutively from 0",
            fix="Correct config.json.",
        )
    return tuple(str(named[str(index)]) for index in range(len(named))), kind == _MULTI_LABEL
