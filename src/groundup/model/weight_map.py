"""A file's tensors and ours: one table of names and operations for each format, used in both directions.

A table is a sequence of `Weight`s. Reading goes from their tensor to ours, writing back; every operation knows both
ways, and does nothing to the numbers that the way back does not undo.

Shape letters: N heads, H head_dim, D dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


LAYER = "{layer}"  # in a name: the number of the layer
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


Shape = tuple[int, ...]


class Operation(ABC):
    """A step between their tensors and ours."""

    @abstractmethod
    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        """From theirs towards ours."""

    @abstractmethod
    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        """From ours towards theirs."""

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        """The shapes of what `write` gives, from those of what it gets."""
        return shapes


@dataclass(frozen=True, slots=True)
class Transpose(Operation):
    """A matrix whose rows are inputs on their side (GPT-2's Conv1D)."""

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.mT for tensor in tensors]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        return self.read(tensors)

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        return [shape[::-1] for shape in shapes]


@dataclass(frozen=True, slots=True)
class Split(Operation):
    """One tensor of theirs that holds several of ours, one behind the other along its first axis.

    Attributes:
        sizes: rows of each of ours.
    """

    sizes: tuple[int, ...]

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(tensors[0].split(self.sizes))

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        import torch

        return [torch.cat(tensors)]

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        return [(sum(self.sizes), *shapes[0][1:])]


@dataclass(frozen=True, slots=True)
class SplitHeads(Operation):
    """A fused projection whose rows are ordered by head: queries, keys and values of head 0, then of head 1, ...

    Attributes:
        heads: of each of the three.
    """

    heads: int

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        by_head = tensors[0].unflatten(0, (self.heads, 3, -1))
        return [part.flatten(0, 1) for part in by_head.unbind(1)]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        import torch

        return [torch.stack([tensor.unflatten(0, (self.heads, -1)) for tensor in tensors], dim=1).flatten(0, 2)]

    def write_shapes(self, shapes: list[Shape]) -> list[Shape]:
        return [(3 * shapes[0][0], *shapes[0][1:])]


@dataclass(frozen=True, slots=True)
class PermuteHeads(Operation):
    """Rows of a query or key projection, or its bias, whose rotated pairs are neighbours on their side, not halves.

    Attributes:
        heads: of this projection.
    """

    heads: int

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).flatten(0, 2) for tensor in tensors]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.unflatten(0, (self.heads, 2, -1)).transpose(1, 2).flatten(0, 2) for tensor in tensors]


@dataclass(frozen=True, slots=True)
class AddOne(Operation):
    """Factors that hold 1 + weight on their side. In less than fp32 the way back rounds: GGUF keeps norms in fp32."""

    def read(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor - 1 for tensor in tensors]

    def write(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor + 1 for tensor in tensors]


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of theirs.

    Attributes:
        theirs: its name; `{layer}` stands for the number of the layer.
        ours: of the tensors of ours that it holds.
        operations: from theirs to ours, in the order of reading.
    """

    theirs: str
    ours: tuple[str, ...]
    operations: tuple[Operation, ...] = ()

    def read(self, theirs: Tensor) -> dict[str, Tensor]:
        """Our tensors out of theirs; views of it where no number changes."""
        tensors = [theirs]
        for operation in self.operations:
            tensors = operation.read(tensors)
        return dict(zip(self.ours, tensors, strict=True))

    def write(self, ours: Callable[[str], Tensor]) -> Tensor:
        """Their tensor out of ours, asked for by name."""
        tensors = [ours(name) for name in self.ours]
        for operation in reversed(self.operations):
            tensors = operation.write(tensors)
        (theirs,) = tensors
        return theirs


def same(*names: str, operations: tuple[Operation, ...] = ()) -> tuple[Weight, ...]:
    """Tensors that have the same name on both sides."""
    return tuple(Weight(name, (name,), operations) for name in names)


def renamed(names: dict[str, str], *operations: Operation) -> tuple[Weight, ...]:
    """Tensors of ours that have another name on their side: ours -> theirs."""
    return tuple(Weight(theirs, (ours,), operations) for ours, theirs in names.items())


def expand(weights: Iterable[Weight], n_layers: int) -> Iterator[Weight]:
    """The table with a `Weight` for each layer in the place of one for all, made as it is asked for.

    Layer by layer, so that a file which claims more layers than it has is found out at the first that is missing.
    """
    outside: list[Weight] = []
    inside: list[Weight] = []
    for weight in weights:
        (inside if LAYER in weight.theirs else outside).append(weight)
    yield from outside
    for layer in range(n_layers):
        for weight in inside:
            yield replace(
                weight,
                theirs=weight.theirs.replace(LAYER, str(layer)),
                ours=tuple(name.replace(LAYER, str(layer)) for name in weight.ours),
            )


def shapes(table: Iterable[Weight], ours: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shape of each tensor of theirs, given those of ours. By arithmetic: sizes that nobody has room for are said
    here first, and tensors without memory (torch's "meta") would load torch's compiler to be joined."""
    found = {}
    for weight in table:
        parts = [tuple(ours[name]) for name in weight.ours]
        for operation in reversed(weight.operations):
            parts = operation.write_shapes(parts)
        (found[weight.theirs],) = parts
    return found
