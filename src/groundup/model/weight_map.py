"""Weight tables, which describe the conversion between the tensors of a file format and the parameters of a model.

A table is a sequence of `Weight` objects. Each operation of a `Weight` is invertible: `read` converts file tensors to
parameters, and `write` converts parameters to file tensors.

Letters in tensor names: N is the number of heads, H the head_dim, and D the hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


LAYER = "{layer}"  # stands for the layer index in a name
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


Shape = tuple[int, ...]


class Operation(ABC):
    """An invertible step of the conversion between file tensors and parameters."""

    @abstractmethod
    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        """Convert tensors from the layout of the file to the layout of the model."""

    @abstractmethod
    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        """Convert tensors from the layout of the model to the layout of the file."""

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Return the shapes of the tensors that `write` returns for inputs of the given shapes."""
        return shapes


@dataclass(frozen=True, slots=True)
class Transpose(Operation):
    """Transpose a matrix that the file stores with shape (inputs, outputs), as in GPT-2's Conv1D."""

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        """Transpose each tensor."""
        return [tensor.mT for tensor in tensors]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        """Transpose each tensor."""
        return self.read(tensors)

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Transpose each shape."""
        return [shape[::-1] for shape in shapes]


@dataclass(frozen=True, slots=True)
class Split(Operation):
    """Split a file tensor along its first axis into several parameters.

    Attributes:
        sizes: Number of rows of each parameter.
    """

    sizes: tuple[int, ...]

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        """Split the file tensor into parameters."""
        return list(tensors[0].split(self.sizes))

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        """Concatenate the parameters."""
        import torch

        return [torch.cat(tensors)]

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Return the shape of the concatenated parameters."""
        return [(sum(self.sizes), *shapes[0][1:])]


@dataclass(frozen=True, slots=True)
class SplitHeads(Operation):
    """Split a fused QKV projection whose rows are sorted by head.

    The rows of q, k and v of head 0 come first, followed by the rows of head 1, and so on.

    Attributes:
        heads: Number of heads.
    """

    heads: int

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        """Split the file tensor into q, k and v."""
        by_head = tensors[0].unflatten(0, (self.heads, 3, -1))
        return [part.flatten(0, 1) for part in by_head.unbind(1)]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        """Interleave the rows of q, k and v head by head."""
        import torch

        return [torch.stack([tensor.unflatten(0, (self.heads, -1)) for tensor in tensors], dim=1).flatten(0, 2)]

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """Return the shape of the fused projection."""
        return [(3 * shapes[0][0], *shapes[0][1:])]


@dataclass(frozen=True, slots=True)
class PermuteHeads(Operation):
    """Permute the rows of a query or key projection.

    The two features that RoPE rotates together are adjacent rows in the file. In the model, they are the rows i and
    i + H / 2 of a head.

    Attributes:
        heads: Number of heads of the projection.
    """

    heads: int

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        """Reorder rows from adjacent pairs to two halves."""
        return [tensor.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2) for tensor in tensors]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        """Reorder rows from two halves to adjacent pairs."""
        return [tensor.unflatten(0, (self.heads, 2, -1)).transpose(1, 2).flatten(0, 2) for tensor in tensors]


@dataclass(frozen=True, slots=True)
class AddOne(Operation):
    """Add 1 to the weight of a norm in the file, because the file stores the factor 1 + weight.

    The rounding error is negligible, because GGUF files store norm weights in fp32.
    """

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        """Subtract 1."""
        return [tensor - 1 for tensor in tensors]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        """Add 1."""
        return [tensor + 1 for tensor in tensors]


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a file and the parameters that it contains.

    Attributes:
        file_name: Name of the tensor in the file. `{layer}` stands for the layer index.
        names: Names of the parameters that the tensor contains.
        operations: Operations that convert the tensor to the parameters, in the order in which `read` applies them.
    """

    file_name: str
    names: tuple[str, ...]
    operations: tuple[Operation, ...] = ()

    @property
    def keeps_rows(self) -> bool:
        """Whether each parameter consists of adjacent rows of the file tensor, in the same order."""
        return all(isinstance(operation, Split) for operation in self.operations)

    def read(self, file_tensor: Tensor) -> dict[str, Tensor]:
        """Convert the file tensor to parameters: name -> tensor, which is a view of the file tensor if possible."""
        tensors = [file_tensor]
        for operation in self.operations:
            tensors = operation.read(tensors)
        return dict(zip(self.names, tensors, strict=True))

    def write(self, parameter: Callable[[str], Tensor]) -> Tensor:
        """Convert the parameters to the file tensor.

        Args:
            parameter: Function that returns the parameter with a given name.
        """
        tensors = [parameter(name) for name in self.names]
        for operation in reversed(self.operations):
            tensors = operation.write(tensors)
        (file_tensor,) = tensors
        return file_tensor


def same(*names: str, operations: tuple[Operation, ...] = ()) -> tuple[Weight, ...]:
    """Return a weight table for tensors that have the same name in the file and in the model."""
    return tuple(Weight(name, (name,), operations) for name in names)


def renamed(names: dict[str, str], *operations: Operation) -> tuple[Weight, ...]:
    """Return a weight table for tensors that have different names, from a mapping of parameter name to file name."""
    return tuple(Weight(file_name, (name,), operations) for name, file_name in names.items())


def expand(weights: Iterable[Weight], n_layers: int) -> Iterator[Weight]:
    """Replace each `Weight` whose names contain `{layer}` by one `Weight` per layer.

    The function is a generator, so that reading stops at the first missing tensor if a config has too many layers.
    """
    outside: list[Weight] = []
    inside: list[Weight] = []
    for weight in weights:
        (inside if LAYER in weight.file_name else outside).append(weight)
    yield from outside
    for layer in range(n_layers):
        for weight in inside:
            yield replace(
                weight,
                file_name=weight.file_name.replace(LAYER, str(layer)),
                names=tuple(name.replace(LAYER, str(layer)) for name in weight.names),
            )


def shapes(table: Iterable[Weight], parameters: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return file name -> shape for each file tensor of a weight table.

    Shapes are computed without tensors, because tensors may be too large to allocate, and `torch.cat` of meta tensors
    would import torch's compiler.

    Args:
        table: The weight table.
        parameters: Name of each parameter -> its shape.
    """
    found = {}
    for weight in table:
        parts = [tuple(parameters[name]) for name in weight.names]
        for operation in reversed(weight.operations):
            parts = operation.write_shapes(parts)
        (found[weight.file_name],) = parts
    return found
