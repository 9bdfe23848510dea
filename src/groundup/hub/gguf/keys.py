"""Typed access to the GGUF metadata of an architecture. Keys are given without the prefix of the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from groundup.core.errors import FormatError
from groundup.hub.gguf.header import MetaValue


@dataclass(frozen=True, slots=True)
class Keys:
    """Metadata keys of one architecture.

    Attributes:
        metadata: all metadata of the file.
        architecture: name of the architecture, which is the prefix of the keys.
    """

    metadata: Mapping[str, MetaValue]
    architecture: str

    def get(self, key: str) -> MetaValue | None:
        """Return the value of a key; None if it is missing."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, default: float | None = None) -> float:
        """Return the value of a key that is one number, or a list with the same number for all layers.

        Args:
            key: key without the prefix of the architecture.
            default: result if the key is missing.

        Returns:
            The number. An integer is not converted to a float.

        Raises:
            FormatError: the key is missing and there is no default, the value is not a number, or the numbers differ
                between layers.
        """
        value = self.get(key)
        if value is None:
            value = default
        if isinstance(value, np.ndarray):
            each = set(value.tolist())
            value = each.pop() if len(each) == 1 else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refused(key, "must be the same number for all layers")
        return value

    def size(self, key: str, default: int | None = None) -> int:
        """Return the value of a key that must be an integer; see `number`.

        Raises:
            FormatError: for the same reasons as in `number`, or the value is not an integer.
        """
        value = self.number(key, default)
        if not isinstance(value, int):
            raise self.refused(key, "must be an integer")
        return value

    def refused(self, key: str, rule: str) -> FormatError:
        """Return the error to raise if the value of a key is not supported."""
        return FormatError(
            f"{self.architecture}.{key} = {str(self.get(key))[:80]!r}",
            rule=rule,
            fix="groundup does not support this variant, or the file is damaged. Choose another model, or download the "
            "file again.",
        )
