"""The metadata that belongs to a file's architecture, asked for by the part of a key that is behind its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from groundup.core.errors import FormatError
from groundup.hub.gguf.header import MetaValue


@dataclass(frozen=True, slots=True)
class Keys:
    """Metadata of one architecture.

    Attributes:
        architecture: what its keys begin with.
    """

    metadata: Mapping[str, MetaValue]
    architecture: str

    def get(self, key: str) -> MetaValue | None:
        """The value as it is, None if it is missing."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, default: float | None = None) -> float:
        """A number that holds for every layer; an integer stays one.

        Raises:
            FormatError: missing without a default, no number, or not the same for all layers.
        """
        value = self.get(key)
        if value is None:
            value = default
        if isinstance(value, np.ndarray):
            each = set(value.tolist())
            value = each.pop() if len(each) == 1 else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refused(key, "one number for all layers is read")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """A whole number, otherwise as `number`.

        Raises:
            FormatError: as `number`.
        """
        value = self.number(key, default)
        if not isinstance(value, int):
            raise self.refused(key, "it is a whole number")
        return value

    def refused(self, key: str, rule: str) -> FormatError:
        """That the value of a key is not read."""
        return FormatError(
            f"{self.architecture}.{key} = {str(self.get(key))[:80]!r}",
            rule=rule,
            fix="The model is of a variant that is not read, or the file is damaged: choose another, or get it again.",
        )
