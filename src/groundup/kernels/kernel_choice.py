"""The kernel that computes each matmul of linear layers and MLPs in training.

Which kernel is fastest depends on the CPU and on the sizes. So the kernels are timed before a run, and the choice is
saved with the run: a resumed run uses the same kernels, because their rounding errors differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.model import ModelConfig
from groundup.model.families import FAMILIES

Operation = Literal["linear", "feed_forward", "feed_forward_gradients", "input_gradients", "weight_gradients"]
Kernel = Literal["native", "torch"]

TILE = 16  # Weight gradients are computed in tiles of 16 x 16 values.
BLOCK = 32  # MLPs and sums of matmuls are computed in blocks of 32 x 32 values.
ACTIVATIONS = ("silu", "gelu_tanh")  # The C++ kernels support only these activations.
_NAMES: dict[Kernel, str] = {"native": "C++", "torch": "PyTorch"}


@dataclass(frozen=True, slots=True)
class MatmulGroup:
    """The matmuls of one operation, for linear layers that have the same input.

    Attributes:
        operation: "linear" is the forward pass of linear layers. "feed_forward" is the first matmuls of an MLP with the
            activation, and "feed_forward_gradients" is their backward pass from the gradient of the MLP's output.
            "input_gradients" and "weight_gradients" are the two parts of the backward pass of linear layers.
        inputs: Input size of the layers.
        outputs: Output size of each layer.
    """

    operation: Operation
    inputs: int
    outputs: tuple[int, ...]

    @property
    def is_native(self) -> bool:
        """Whether the C++ kernels support these sizes."""
        tile = TILE if self.operation == "weight_gradients" else BLOCK
        return all(size % tile == 0 for size in (self.inputs, *self.outputs))

    @property
    def is_plain(self) -> bool:
        """Whether the operation consists of plain matmuls, for which PyTorch is fast if the CPU multiplies bf16."""
        return self.operation == "linear" or (self.operation == "input_gradients" and len(self.outputs) == 1)


@dataclass(frozen=True, slots=True)
class ChosenKernel:
    """The kernel of one group of matmuls.

    Attributes:
        group: The group of matmuls.
        kernel: The chosen kernel.
        milliseconds: Measured time of each kernel.
    """

    group: MatmulGroup
    kernel: Kernel
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The kernel of each group of matmuls of a model.

    Attributes:
        default: Kernel of all other matmuls.
        choices: Kernels of the measured matmuls.
        plain: Kernel of plain matmuls that were not measured.
    """

    default: Kernel = "native"
    choices: tuple[ChosenKernel, ...] = ()
    plain: Kernel = "torch"

    def kernel_of(self, group: MatmulGroup) -> Kernel:
        """Return the kernel of a group. PyTorch computes groups that the C++ kernels do not support."""
        other = self.plain if group.is_plain else self.default
        chosen = next((choice.kernel for choice in self.choices if choice.group == group), other)
        return chosen if group.is_native else "torch"

    def describe(self) -> str:
        """Return the number of groups that each kernel computes, such as "C++ 6, PyTorch 2"."""
        counts = Counter(choice.kernel for choice in self.choices)
        return ", ".join(f"{name} {counts[kernel]}" for kernel, name in _NAMES.items() if counts[kernel])

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> KernelChoice:
        """Create the choice from the result of `dataclasses.asdict`, also after it was saved as JSON."""
        choices = []
        for choice in record["choices"]:
            group = dict(choice["group"]) | {"outputs": tuple(choice["group"]["outputs"])}
            choices.append(ChosenKernel(**dict(choice) | {"group": MatmulGroup(**group)}))
        return cls(record["default"], tuple(choices), record["plain"])


def matmul_groups(config: ModelConfig) -> list[MatmulGroup]:
    """Return the groups of matmuls of a training step for which there is more than one fast kernel.

    Args:
        config: Architecture of a model whose weights are all trained.
    """
    family = FAMILIES[config.family]
    heads, kv_heads = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    qkv, inner = (heads, kv_heads, kv_heads), (config.ffn_dim,) * (1 + family.gated)
    fused: tuple[Operation, ...] = ("feed_forward", "feed_forward_gradients")
    groups = [
        *(MatmulGroup(operation, config.dim, inner) for operation in fused if family.activation in ACTIVATIONS),
        MatmulGroup("input_gradients", config.dim, qkv),
        MatmulGroup("input_gradients", config.dim, inner),
        MatmulGroup("weight_gradients", config.dim, qkv),
        MatmulGroup("weight_gradients", heads, (config.dim,)),
        MatmulGroup("weight_gradients", config.dim, inner),
        MatmulGroup("weight_gradients", config.ffn_dim, (config.dim,)),
    ]
    return [each for each in dict.fromkeys(groups) if each.is_native and not each.is_plain]
