"""Matrix products in fp8: an option for the GPUs that have them, through torchao.

Weights and what is kept stay as they are; each product rounds both sides to fp8, scaled by their largest value
(arXiv:2209.05433: forward in e4m3, gradients in e5m2).
"""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from groundup.core.errors import ResourceError
from groundup.model import SequenceClassifier, Transformer

_STEP = 16  # what sides of a matrix must be a multiple of
_FIRST_CAPABILITY = (8, 9)


def require_fp8() -> None:
    """See whether this machine can.

    Raises:
        ResourceError: no GPU with fp8, or no torchao.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < _FIRST_CAPABILITY:
        found = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU"
        raise ResourceError(
            f"fp8 = true: {found}",
            rule="matrix products in fp8 need a GPU that has them: Hopper (H100) or later, or Ada",
            fix="Leave fp8 out: bf16 is used where it is the fastest.",
        )
    if importlib.util.find_spec("torchao") is None:
        raise ResourceError(
            "fp8 = true: torchao is not installed",
            rule="fp8 goes through torchao",
            fix='Install it: pip install "groundup[fp8]".',
        )


def use_fp8(model: Transformer | SequenceClassifier, *, emulate: bool = False) -> None:
    """Let the matrix products of a model's layers be computed in fp8; embeddings and the head stay.

    Args:
        emulate: round as fp8 does and multiply in the dtype of the input: on machines without fp8, for tests.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(
        model.model.layers,
        module_filter_fn=lambda module, _: _fits(module),
        config=Float8LinearConfig(emulate=emulate),
    )


def _fits(module: nn.Module) -> bool:
    if not isinstance(module, nn.Linear) or module.weight is None:  # a quantized layer has no weight to convert
        return False
    return module.in_features % _STEP == 0 and module.out_features % _STEP == 0
