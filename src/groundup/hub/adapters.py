"""Low-rank adapters in PEFT's files: `adapter_config.json` and `adapter_model.safetensors`.

Shape letters: R rank, I inputs, O outputs of a layer.
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
    require_plain_lora,
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
_HEAD = "base_model.model.score.weight"  # where PEFT keeps a module that is trained whole
_LARGEST_CONFIG = 1_000_000


def save_adapter(directory: Path, model: Transformer | SequenceClassifier, *, base: str | None = None) -> list[Path]:
    """Write the adapters of a model, and the head of a classifier, without the model.

    Args:
        base: where the model without them is found, as a path or a name; PEFT loads it by that.

    Returns:
        The files written.
    """
    ours, layers = lora_layers(model), _their_layers(model)
    assert ours, "a model with adapters"
    tensors: dict[str, Tensor] = {}
    adapted: dict[str, AdaptedLayer] = {}
    for theirs, weight in layers.items():
        names = _layer_names(weight)
        if not any(name in ours for name in names):
            continue
        parts = [(ours.get(name), get_linear(model, name).out_features) for name in names]
        a_RI, b_OR, scale = _fused(parts, _of_rows(weight))
        tensors[f"base_model.model.{theirs}.lora_A.weight"] = a_RI
        tensors[f"base_model.model.{theirs}.lora_B.weight"] = b_OR
        adapted[theirs] = AdaptedLayer(len(a_RI), scale)
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
        dropout=next(iter(ours.values())).dropout,
        classifies=classifies,
    )
    write_json(directory / CONFIG, record)
    return [directory / WEIGHTS, directory / CONFIG]


def load_adapter(directory: Path, model: Transformer | SequenceClassifier) -> list[str]:
    """Put the adapters of a directory, ours or PEFT's, into the model that they were trained on, in place.

    `groundup.model.lora.fuse_lora` merges them into its matrices.

    Returns:
        The names of the layers that were adapted.

    Raises:
        FormatError: no adapter there, a pickle instead of safetensors, a damaged file, a variant of LoRA that computes
            something else, or an adapter of another model. The model is then as it was.
    """
    record = require_plain_lora(_read_config(directory))
    file = open_tensors(directory / WEIGHTS)
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    head = tensors.pop(_HEAD, None) if isinstance(model, SequenceClassifier) else None
    pairs = _pairs(tensors)
    layers = _their_layers(model)
    found: dict[str, LoRALinear] = {}
    for theirs, pair in pairs.items():
        if theirs not in layers:
            kinds = sorted({name.rpartition(".")[2] for name in layers})
            raise FormatError(
                f"an adapter of the layer {theirs!r}"[:200],
                rule=f"this {model.config.family} model has the layers {', '.join(kinds)}, {len(layers)} in all",
                fix="Load the adapter beside the model that it was trained on.",
            )
        announced = read_adapter_config(record, theirs)
        found |= _split(model, layers[theirs], theirs, pair, announced)
    if isinstance(model, SequenceClassifier):
        _take_head(model, head)
    for name, layer in found.items():
        replace_module(model, name, layer)
    return list(found)


def read_adapter_json(directory: Path) -> dict[str, Any]:
    """An adapter's config.

    Raises:
        FormatError: as `load_adapter`.
    """
    return require_plain_lora(_read_config(directory))


def head_rows(directory: Path) -> int:
    """How many labels the head of a classifier's adapter scores; 0 where there is none."""
    file = open_tensors(directory / WEIGHTS)
    return int(file.get_slice(_HEAD).get_shape()[0]) if _HEAD in set(file.keys()) else 0


def _take_head(model: SequenceClassifier, head: Tensor | None) -> None:
    own = model.score.weight
    if head is None or head.shape != own.shape or not head.isfinite().all():
        raise FormatError(
            f"{_HEAD}: {'missing' if head is None else tuple(head.shape)}",
            rule=f"beside this model, a classifier's head has the shape {tuple(own.shape)}, and finite values",
            fix="Load the adapter beside the model that it was trained on; if it is, get it again.",
        )
    own.data.copy_(head)


@dataclass(slots=True)
class _Pair:
    a_RI: Tensor | None = None
    b_OR: Tensor | None = None


def _their_layers(model: Transformer | SequenceClassifier) -> dict[str, Weight]:
    """The layers that can be adapted, by the names that they have on disk: the weight that holds ours."""
    ours = set(linear_layers(model))
    layers: dict[str, Weight] = {}
    for weight in weight_table(model.config):
        if weight.file_name.endswith(".weight") and ours.issuperset(_layer_names(weight)):
            layers[weight.file_name.removesuffix(".weight")] = weight
    return layers


def _layer_names(weight: Weight) -> tuple[str, ...]:
    """Names of the linear layers whose matrices a weight holds."""
    return tuple(name.removesuffix(".weight") for name in weight.names)


def _of_rows(weight: Weight) -> Weight:
    """The same for the factor B, whose rows are outputs in every file."""
    return replace(weight, operations=tuple(step for step in weight.operations if not isinstance(step, Transpose)))


def _is_transposed(model: Transformer | SequenceClassifier) -> bool:
    """Whether the files keep matrices with inputs as rows (transformers' Conv1D)."""
    return any(isinstance(step, Transpose) for weight in weight_table(model.config) for step in weight.operations)


def _fused(parts: list[tuple[LoRALinear | None, int]], weight: Weight) -> tuple[Tensor, Tensor, float]:
    """One adapter for layers that are one on disk: A of all, one below the other, and B of each in rows of its own."""
    present = [layer for layer, _ in parts if layer is not None]
    scale = present[0].scale
    a_RI = torch.cat([layer.lora_A.detach().float().cpu() for layer in present])
    blocks = [torch.zeros(outputs, len(a_RI)) for _, outputs in parts]
    column = 0
    for (layer, _), block_OR in zip(parts, blocks, strict=True):
        if layer is not None:
            own = layer.lora_B.detach().float().cpu() * (layer.scale / scale)
            block_OR[:, column : column + own.shape[1]] = own
            column += own.shape[1]
    b_OR = weight.write(dict(zip(weight.names, blocks, strict=True)).__getitem__)
    return a_RI.contiguous(), b_OR.contiguous(), scale


def _split(
    model: Transformer | SequenceClassifier, weight: Weight, theirs: str, pair: _Pair, announced: AdaptedLayer
) -> dict[str, LoRALinear]:
    """The adapters of ours that one of theirs holds."""
    names = _layer_names(weight)
    bases = [get_linear(model, name) for name in names]
    inputs, outputs = bases[0].in_features, [base.out_features for base in bases]
    expected = {"A": (announced.rank, inputs), "B": (sum(outputs), announced.rank)}
    for factor, tensor in (("A", pair.a_RI), ("B", pair.b_OR)):
        shape = None if tensor is None else tuple(tensor.shape)
        if shape != expected[factor]:
            raise FormatError(
                f"{theirs}.lora_{factor}: {shape or 'missing'}"[:200],
                rule=f"with rank {announced.rank}, beside this model, its shape is {expected[factor]}",
                fix="Load the adapter beside the model that it was trained on; if it is, get it again.",
            )
    assert pair.a_RI is not None and pair.b_OR is not None
    a_RI, b_OR = pair.a_RI.float(), pair.b_OR.float()
    if not (a_RI.isfinite().all() and b_OR.isfinite().all()):
        raise FormatError(
            f"{theirs}: values that are no numbers",
            rule="the factors of an adapter are finite",
            fix="Its training diverged, or the file is damaged: get it again.",
        )
    adapted = {}
    for name, base, own in zip(names, bases, _of_rows(weight).read(b_OR).values(), strict=True):
        # Of several layers in one, each has columns of its own where they were ours: it gets those back.
        used_R = own.any(0) if len(names) > 1 and own.any() else torch.ones(len(a_RI), dtype=torch.bool)
        layer = LoRALinear(base, int(used_R.sum()), announced.scale)
        layer.lora_A.data = a_RI[used_R].to(layer.lora_A.device)
        layer.lora_B.data = own[:, used_R].contiguous().to(layer.lora_B.device)
        adapted[name] = layer
    return adapted


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, _Pair]:
    pairs: dict[str, _Pair] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise FormatError(
                f"a tensor {name!r}"[:200],
                rule="a plain LoRA adapter has lora_A and lora_B of linear layers, and nothing else",
                fix="Merge the adapter into its base with the tool that made it, and import the result.",
            )
        setattr(pairs.setdefault(match[1], _Pair()), "a_RI" if match[2] == "A" else "b_OR", tensor)
    if not pairs:
        raise FormatError(f"{WEIGHTS}: empty", rule="an adapter adapts some layer", fix="Get the adapter again.")
    return pairs


def _read_config(directory: Path) -> Any:
    config, weights = directory / CONFIG, directory / WEIGHTS
    if not config.is_file() or not weights.is_file():
        pickles = sorted(path.name for path in directory.glob("*.bin"))
        raise FormatError(
            f"{directory}: " + (f"{pickles[0]} is a pickle" if pickles else f"no {CONFIG} and {WEIGHTS} in it"),
            rule="an adapter is safetensors with a config; pickles can run foreign code and are never loaded",
            fix="Save the adapter as safetensors first (PEFT: save_pretrained with safe_serialization=True).",
        )
    if config.stat().st_size > _LARGEST_CONFIG:
        raise FormatError(
            f"{config}: {config.stat().st_size:,} bytes",
            rule=f"an adapter's config has at most {_LARGEST_CONFIG:,}",
            fix="Look at what the file is: it is no config of PEFT's.",
        )
    return read_json(config)
