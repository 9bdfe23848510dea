"""fp8 matmuls with torchao, for GPUs that support fp8.

Each matmul scales both operands by their maximum absolute value and rounds them to fp8. The format is e4m3 in the
forward pass and e5m2 for gradients (arXiv:2209.05433). Weights and saved activations are stored in a higher precision.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from groundup.core.errors import ResourceError
from groundup.model import SequenceClassifier, Transformer

_MULTIPLE = 16  # Both dimensions of a weight matrix must be multiples of this number.
_MIN_CAPABILITY = (8, 9)


def require_fp8() -> None:
    """Check that this machine supports fp8.

    Raises:
        ResourceError: The GPU does not support fp8, no GPU is available, or torchao is not installed.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < _MIN_CAPABILITY:
        found = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU"
        raise ResourceError(
            f"fp8 = true: {found}",
            rule="fp8 matmuls need an Ada, Hopper (H100) or later GPU",
            fix="Omit fp8: bf16 is used if it is fastest.",
        )
    if importlib.util.find_spec("torchao") is None:
        raise ResourceError(
            "fp8 = true: torchao is not installed",
            rule="fp8 needs torchao",
            fix='Install it: pip install "groundup[fp8]".',
        )


def use_fp8(model: Transformer | SequenceClassifier, *, emulate: bool = False) -> None:
    """Convert the linear layers of all transformer blocks to fp8 matmuls, in place.

    Args:
        model: The model.
        emulate: Whether to round operands to fp8 but multiply them in the dtype of the input. This makes tests possible
            on machines that do not support fp8.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(
        model.model.layers,
        module_filter_fn=lambda module, _: _is_convertible(module),
        config=Float8LinearConfig(emulate=emulate),
    )


def _is_convertible(module: nn.Module) -> bool:
    if not isinstance(module, nn.Linear) or module.weight is None:  # A quantized layer has no `weight`.
        return False
    return module.in_features % _MULTIPLE == 0 and module.out_features % _MULTIPLE == 0
