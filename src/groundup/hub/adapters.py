"""LoRA adapters in PEFT's file format: `adapter_config.json` and `adapter_model.safetensors`.

Letters in tensor names: R is the LoRA rank, I the number of inputs, and O the number of outputs of a layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from groundup.core.errors import FormatError
from groundup.core.files import atomic_file, read_json, system_errors, write_json
from groundup.hub.adapter_config import (
    AdaptedLayer,
    read_adapter_config,
    require_supported_lora,
    write_adapter_config,
)
from groundup.hub.families import weight_table
from groundup.hub.weight_files import open_tensors
from groundup.model import SequenceClassifier, Transformer
from groundup.model.lora import LoRALinear, get_linear, linear_layers, lora_layers, replace_module
from groundup.model.weight_map import Transpose, Weight

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_HEAD = "base_model.model.score.weight"  # Name of the classification head (trained in full) in PEFT's files.
_MAX_CONFIG_BYTES = 1_000_000


def save_adapter(directory: Path, model: Transformer | SequenceClassifier, *, base: str | None = None) -> list[Path]:
    """Write the adapters of a model, and for a classifier its head. The base model is not written.

    Args:
        directory: output directory.
        model: model with adapters.
        base: path or Hugging Face name from which PEFT loads the base model.

    Returns:
        The files written.
    """
    adapters, layers = lora_layers(model), _adaptable_layers(model)
    assert adapters, "a model with adapters"
    tensors: dict[str, Tensor] = {}
    adapted: dict[str, AdaptedLayer] = {}
    for layer_name, weight in layers.items():
        names = _layer_names(weight)
        if not any(name in adapters for name in names):
            continue
        parts = [(adapters.get(name), get_linear(model, name).out_features) for name in names]
        a_RI, b_OR, scale = _fused(parts, _for_factor_b(weight))
        tensors[f"base_model.model.{layer_name}.lora_A.weight"] = a_RI
        tensors[f"base_model.model.{layer_name}.lora_B.weight"] = b_OR
        adapted[layer_name] = AdaptedLayer(len(a_RI), scale)
    classifies = isinstance(model, SequenceClassifier)
    if isinstance(model, SequenceClassifier):
        tensors[_HEAD] = model.score.weight.detach().float().cpu().contiguous()
    with atomic_file(directory / WEIGHTS) as temporary, system_errors(temporary):
        save_file(tensors, temporary, metadata={"format": "pt"})
    record = write_adapter_config(
        adapted,
        layers,
        base=base,
        fan_in_fan_out=_is_transposed(model),
        dropout=next(iter(adapters.values())).dropout,
        classifies=classifies,
    )
    write_json(directory / CONFIG, record)
    return [directory / WEIGHTS, directory / CONFIG]


def load_adapter(directory: Path, model: Transformer | SequenceClassifier) -> list[str]:
    """Add the LoRA layers of an adapter directory to the base model, in place.

    groundup or PEFT may have written the directory. `groundup.model.lora.fuse_lora` merges the LoRA layers into the
    weights.

    Args:
        directory: directory of the adapter.
        model: base model; it is modified in place.

    Returns:
        The names of the adapted layers.

    Raises:
        FormatError: the directory does not contain an adapter, the weights are a pickle, a file is damaged, the variant
            of LoRA is unsupported, or the adapter was trained on another model. The model is then not modified.
    """
    record = require_supported_lora(_read_config(directory))
    file = open_tensors(directory / WEIGHTS)
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  a safetensors file is not a mapping
    head = tensors.pop(_HEAD, None) if isinstance(model, SequenceClassifier) else None
    pairs = _pairs(tensors)
    layers = _adaptable_layers(model)
    found: dict[str, LoRALinear] = {}
    for layer_name, pair in pairs.items():
        if layer_name not in layers:
            kinds = sorted({name.rpartition(".")[2] for name in layers})
            raise FormatError(
                f"the adapter has weights for the unknown layer {layer_name!r}"[:200],
                rule=f"this {model.config.family} model has {len(layers)} layers: {', '.join(kinds)}",
                fix="Load the adapter with the model that it was trained on.",
            )
        expected_layer = read_adapter_config(record, layer_name)
        found |= _split(model, layers[layer_name], layer_name, pair, expected_layer)
    if isinstance(model, SequenceClassifier):
        _load_head(model, head)
    for name, layer in found.items():
        replace_module(model, name, layer)
    return list(found)


def read_adapter_json(directory: Path) -> dict[str, Any]:
    """Return the content of an adapter's `adapter_config.json`.

    Raises:
        FormatError: for the same reasons as in `load_adapter`.
    """
    return require_supported_lora(_read_config(directory))


def head_rows(directory: Path) -> int:
    """Return the number of labels of an adapter's classification head; 0 if the adapter does not have a head."""
    file = open_tensors(directory / WEIGHTS)
    return int(file.get_slice(_HEAD).get_shape()[0]) if _HEAD in set(file.keys()) else 0


def _load_head(model: SequenceClassifier, head: Tensor | None) -> None:
    own_head = model.score.weight
    if head is None or head.shape != own_head.shape or not head.isfinite().all():
        raise FormatError(
            f"{_HEAD}: {'missing' if head is None else tuple(head.shape)}",
            rule=f"the head must have the shape {tuple(own_head.shape)} for this model, and finite values",
            fix="Load the adapter with the model that it was trained on. "
            "If this is the right model, download the adapter again.",
        )
    own_head.data.copy_(head)


@dataclass(slots=True)
class _Pair:
    a_RI: Tensor | None = None
    b_OR: Tensor | None = None


def _adaptable_layers(model: Transformer | SequenceClassifier) -> dict[str, Weight]:
    """Return the layers that LoRA can adapt: Hugging Face name -> weight."""
    linear_names = set(linear_layers(model))
    layers: dict[str, Weight] = {}
    for weight in weight_table(model.config):
        if weight.file_name.endswith(".weight") and linear_names.issuperset(_layer_names(weight)):
            layers[weight.file_name.removesuffix(".weight")] = weight
    return layers


def _layer_names(weight: Weight) -> tuple[str, ...]:
    """Return the names of the linear layers whose weights are stored in one tensor of the file."""
    return tuple(name.removesuffix(".weight") for name in weight.names)


def _for_factor_b(weight: Weight) -> Weight:
    """Return the table entry for factor B: without transposition, because B is always stored as (outputs, rank)."""
    return replace(weight, operations=tuple(step for step in weight.operations if not isinstance(step, Transpose)))


def _is_transposed(model: Transformer | SequenceClassifier) -> bool:
    """Return whether the files store weights with shape (inputs, outputs), as transformers' Conv1D does."""
    return any(isinstance(step, Transpose) for weight in weight_table(model.config) for step in weight.operations)


def _fused(parts: list[tuple[LoRALinear | None, int]], weight: Weight) -> tuple[Tensor, Tensor, float]:
    """Return one adapter for layers that share a tensor on disk: stacked factors A and a block-diagonal factor B."""
    present = [layer for layer, _ in parts if layer is not None]
    scale = present[0].scale
    a_RI = torch.cat([layer.lora_A.detach().float().cpu() for layer in present])
    blocks = [torch.zeros(outputs, len(a_RI)) for _, outputs in parts]
    column = 0
    for (layer, _), block_OR in zip(parts, blocks, strict=True):
        if layer is not None:
            part_OR = layer.lora_B.detach().float().cpu() * (layer.scale / scale)
            block_OR[:, column : column + part_OR.shape[1]] = part_OR
            column += part_OR.shape[1]
    b_OR = weight.write(dict(zip(weight.names, blocks, strict=True)).__getitem__)
    return a_RI.contiguous(), b_OR.contiguous(), scale


def _split(
    model: Transformer | SequenceClassifier, weight: Weight, layer_name: str, pair: _Pair, expected_layer: AdaptedLayer
) -> dict[str, LoRALinear]:
    """Split the adapter of a tensor on disk into one adapter per layer that the tensor contains."""
    names = _layer_names(weight)
    bases = [get_linear(model, name) for name in names]
    inputs, outputs = bases[0].in_features, [base.out_features for base in bases]
    expected = {"A": (expected_layer.rank, inputs), "B": (sum(outputs), expected_layer.rank)}
    for factor, tensor in (("A", pair.a_RI), ("B", pair.b_OR)):
        shape = None if tensor is None else tuple(tensor.shape)
        if shape != expected[factor]:
            raise FormatError(
                f"{layer_name}.lora_{factor}: {shape or 'missing'}"[:200],
                rule=f"with rank {expected_layer.rank} and this model, its shape must be {expected[factor]}",
                fix="Load the adapter with the model that it was trained on. "
                "If this is the right model, download the adapter again.",
            )
    assert pair.a_RI is not None and pair.b_OR is not None
    a_RI, b_OR = pair.a_RI.float(), pair.b_OR.float()
    if not (a_RI.isfinite().all() and b_OR.isfinite().all()):
        raise FormatError(
            f"{layer_name}: some values are not finite",
            fix="Training diverged, or the file is damaged: train or download the adapter again.",
        )
    adapted = {}
    for name, base, part_OR in zip(names, bases, _for_factor_b(weight).read(b_OR).values(), strict=True):
        # groundup writes one adapter for several layers, in which each layer has its own columns of B.
        used_R = part_OR.any(0) if len(names) > 1 and part_OR.any() else torch.ones(len(a_RI), dtype=torch.bool)
        layer = LoRALinear(base, int(used_R.sum()), expected_layer.scale)
        layer.lora_A.data = a_RI[used_R].to(layer.lora_A.device)
        layer.lora_B.data = part_OR[:, used_R].contiguous().to(layer.lora_B.device)
        adapted[name] = layer
    return adapted


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, _Pair]:
    pairs: dict[str, _Pair] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise FormatError(
                f"an unexpected tensor {name!r}"[:200],
                rule="a LoRA adapter consists of the tensors lora_A and lora_B of linear layers",
                fix="Merge the adapter into its base model with the tool that wrote it, and import the result.",
            )
        setattr(pairs.setdefault(match[1], _Pair()), "a_RI" if match[2] == "A" else "b_OR", tensor)
    if not pairs:
        raise FormatError(f"{WEIGHTS}: the file contains no tensors", fix="Download the adapter again.")
    return pairs


def _read_config(directory: Path) -> Any:
    config, weights = directory / CONFIG, directory / WEIGHTS
    if not config.is_file() or not weights.is_file():
        pickles = sorted(path.name for path in directory.glob("*.bin"))
        raise FormatError(
            f"{directory}: " + (f"{pickles[0]} is a pickle" if pickles else f"no {CONFIG} and {WEIGHTS} in it"),
            rule="an adapter needs both files; pickles can run arbitrary code and are never loaded",
            fix="Save the adapter as safetensors first (PEFT: save_pretrained with safe_serialization=True).",
        )
    if config.stat().st_size > _MAX_CONFIG_BYTES:
        raise FormatError(
            f"{config}: {config.stat().st_size:,} bytes",
            rule=f"the maximum is {_MAX_CONFIG_BYTES:,}",
            fix="The file is not a PEFT config: download the adapter again.",
        )
    return read_json(config)
