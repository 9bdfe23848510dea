"""fp8 matmuls on GPUs that support them, with torchao.

Each matmul rounds both operands to fp8, scaled by their largest value (arXiv:2209.05433: e4m3 forward, e5m2 for
gradients). Weights and saved activations are not in fp8.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from groundup.core.errors import ResourceError
from groundup.model import SequenceClassifier, Transformer

_MULTIPLE = 16  # of both dimensions of a matrix
_MIN_CAPABILITY = (8, 9)


def require_fp8() -> None:
    """Check that this machine supports fp8.

    Raises:
        ResourceError: There is no GPU with fp8, or torchao is not installed.
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
    """Convert the linear layers inside the blocks to fp8 matmuls, in place.

    Args:
        model: The model.
        emulate: Round to fp8 but multiply in the input's dtype, for tests on machines without fp8.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(
        model.model.layers,
        module_filter_fn=lambda module, _: _is_convertible(module),
        config=Float8LinearConfig(emulate=emulate),
    )


def _is_convertible(module: nn.Module) -> bool:
    if not isinstance(module, nn.Linear) or module.weight is None:  # a quantized layer has no weight
        return False
    return module.in_features % _MULTIPLE == 0 and module.out_features % _MULTIPLE == 0
