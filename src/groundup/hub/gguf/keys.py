"""Typed access to the metadata of an architecture, by key without the architecture's prefix."""

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
        metadata: metadata of the file.
        architecture: prefix of the keys.
    """

    metadata: Mapping[str, MetaValue]
    architecture: str

    def get(self, key: str) -> MetaValue | None:
        """Return the value of a key; None if it is missing."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number that is the same for all layers; integers stay integers.

        Args:
            key: key without prefix.
            default: value if the key is missing.

        Returns:
            The number.

        Raises:
            FormatError: the key is missing without a default, the value is not a number, or it differs between layers.
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
        """Return an integer; see `number`.

        Raises:
            FormatError: as `number`.
        """
        value = self.number(key, default)
        if not isinstance(value, int):
            raise self.refused(key, "must be an integer")
        return value

    def refused(self, key: str, rule: str) -> FormatError:
        """Return the error for an unsupported value."""
        return FormatError(
            f"{self.architecture}.{key} = {str(self.get(key))[:80]!r}",
            rule=rule,
            fix="groundup does not support this variant, or the file is damaged: choose another model, or download it "
            "again.",
        )
