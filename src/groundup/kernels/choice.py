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
class Product:
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
    """The kernel of one product.

    Attributes:
        product: The product.
        kernel: The chosen kernel.
        milliseconds: Measured time of each kernel.
    """

    product: Product
    kernel: Kernel
    milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The kernel of each product of a model.

    Attributes:
        default: Kernel of all other products.
        choices: Kernels of the measured products.
        plain: Kernel of plain matmuls that were not measured.
    """

    default: Kernel = "native"
    choices: tuple[ChosenKernel, ...] = ()
    plain: Kernel = "torch"

    def kernel_of(self, product: Product) -> Kernel:
        """Return the kernel of a product. PyTorch computes products that the C++ kernels do not support."""
        other = self.plain if product.is_plain else self.default
        chosen = next((choice.kernel for choice in self.choices if choice.product == product), other)
        return chosen if product.is_native else "torch"

    def describe(self) -> str:
        """Return the number of products that each kernel computes, such as "C++ 6, PyTorch 2"."""
        counts = Counter(choice.kernel for choice in self.choices)
        return ", ".join(f"{name} {counts[kernel]}" for kernel, name in _NAMES.items() if counts[kernel])

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> KernelChoice:
        """Create the choice from the result of `dataclasses.asdict`, also after it was saved as JSON."""
        choices = []
        for choice in record["choices"]:
            product = dict(choice["product"]) | {"outputs": tuple(choice["product"]["outputs"])}
            choices.append(ChosenKernel(**dict(choice) | {"product": Product(**product)}))
        return cls(record["default"], tuple(choices), record.get("plain", "torch"))


def products_of(config: ModelConfig) -> list[Product]:
    """Return the products of a training step for which there is more than one fast kernel.

    Args:
        config: Architecture of a model whose weights are all trained.
    """
    family = FAMILIES[config.family]
    heads, kv_heads = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    qkv, inner = (heads, kv_heads, kv_heads), (config.ffn_dim,) * (1 + family.gated)
    fused: tuple[Operation, ...] = ("feed_forward", "feed_forward_gradients")
    products = [
        *(Product(operation, config.dim, inner) for operation in fused if family.activation in ACTIVATIONS),
        Product("input_gradients", config.dim, qkv),
        Product("input_gradients", config.dim, inner),
        Product("weight_gradients", config.dim, qkv),
        Product("weight_gradients", heads, (config.dim,)),
        Product("weight_gradients", config.dim, inner),
        Product("weight_gradients", config.ffn_dim, (config.dim,)),
    ]
    return [each for each in dict.fromkeys(products) if each.is_native and not each.is_plain]
