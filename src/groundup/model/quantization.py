"""Quantization of the frozen linear layers of a model. `groundup.model.quantized` describes the formats.

A model is quantized before it is moved to a device, compiled or sharded, and before or after LoRA adapters are added
(QLoRA, arXiv:2305.14314).
"""

from __future__ import annotations

from torch import nn

from groundup.core.errors import ConfigError
from groundup.model.layers import Linear
from groundup.model.lora import get_linear, linear_layers
from groundup.model.quantized import GROUP_SIZE, Bits, QuantizedWeight


def quantize_frozen(model: nn.Module, bits: Bits, group_size: int = GROUP_SIZE) -> list[str]:
    """Quantize all linear layers in the transformer blocks, in place.

    Embeddings, norms, the output head and adapters are not quantized.

    Args:
        model: The model. Its linear layers must be frozen.
        bits: Number of bits per weight, 4 or 8.
        group_size: Number of consecutive inputs that share a scale.

    Returns:
        The names of the quantized layers.

    Raises:
        ConfigError: A layer is trainable or already quantized, or its number of inputs is not a multiple of
            `group_size`. The model is then not modified.
    """
    if bits not in (4, 8):
        raise ConfigError(f"bits = {bits}", rule="only 8 and 4 bits are supported", fix="Set bits = 8 or 4.")
    names = linear_layers(model)
    for name in names:
        _require_quantizable(name, get_linear(model, name), group_size)
    for name in names:
        layer = get_linear(model, name)
        layer.quantized = QuantizedWeight.quantize(layer.weight, bits, group_size)
        layer.weight = None  # type: ignore[assignment]
    return names


def _require_quantizable(name: str, layer: nn.Linear, group_size: int) -> None:
    if not isinstance(layer, Linear) or layer.quantized is not None:
        raise ConfigError(
            f"{name}: not a dense linear layer",
            rule="the layer is already quantized, or has another type",
            fix="Load the model again, and quantize it only once.",
        )
    if layer.weight.requires_grad:
        raise ConfigError(
            f"{name}: trainable weight",
            rule="only frozen layers can be quantized, because quantized weights cannot be trained",
            fix="Freeze the model first, for example with groundup.model.lora.add_lora.",
        )
    if group_size < 2 or group_size % 2 or layer.in_features % group_size:
        raise ConfigError(
            f"{name}: {layer.in_features} inputs, group_size = {group_size}",
            rule="group_size must be even, and the number of inputs must be a multiple of group_size",
            fix="Set a group_size that divides the number of inputs, for example 32 or 16.",
        )


def dequantize(model: nn.Module) -> list[str]:
    """Replace all quantized weights by dequantized fp32 weights, in place.

    Args:
        model: The model.

    Returns:
        The names of the dequantized layers.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, Linear) and module.quantized}
    for layer in found.values():
        layer.weight, layer.quantized = layer.frozen_weight(), None
    return list(found)


def bits_per_weight(model: nn.Module) -> float:
    """Return the average number of bits per weight of the linear layers in the transformer blocks, including scales."""
    layers = [get_linear(model, name) for name in linear_layers(model)]
    held = [layer.quantized if isinstance(layer, Linear) and layer.quantized else layer.weight for layer in layers]
    return 8 * sum(each.nbytes for each in held) / sum(layer.in_features * layer.out_features for layer in layers)
