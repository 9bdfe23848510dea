"""Lookup in JSON of other stages or releases. A missing value is None."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its confidence interval.

    Attributes:
        value: Point estimate.
        low: Lower bound, if known.
        high: Upper bound, if known.
    """

    value: float
    low: float | None = None
    high: float | None = None


class Facts:
    """A JSON value with typed lookup by path. A missing value, or one of another type, is None or empty.

    Args:
        value: The JSON value.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return bool(self._value)

    def at(self, *path: str | int) -> Any:
        """Return the value at a path of keys and indices."""
        value = self._value
        for key in path:
            inside = (isinstance(value, dict) and key in value) or (
                isinstance(value, list) and isinstance(key, int) and key < len(value)
            )
            if not inside:
                return None
            value = value[key]
        return value

    def part(self, *path: str | int) -> Facts:
        """Return the value at a path as `Facts`."""
        return Facts(self.at(*path))

    def number(self, *path: str | int) -> float | None:
        """Return a finite number."""
        value = self.at(*path)
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if known else None

    def count(self, *path: str | int) -> int:
        """Return a count, 0 if missing."""
        return round(self.number(*path) or 0)

    def words(self, *path: str | int) -> str:
        """Return text, or a number or Boolean as text, "" if missing."""
        value = self.at(*path)
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int | float) else ""

    def rows(self, *path: str | int) -> list[Facts]:
        """Return the items of a list."""
        value = self.at(*path)
        return [Facts(item) for item in value] if isinstance(value, list) else []

    def items(self, *path: str | int) -> Iterator[tuple[str, Facts]]:
        """Yield the keys and values of an object."""
        value = self.at(*path)
        if isinstance(value, dict):
            for key, item in value.items():
                yield str(key), Facts(item)

    def estimate(self, *path: str | int, key: str = "value") -> Estimate | None:
        """Return the number at `path` under `key`, with the bounds under "interval"."""
        value = self.number(*path, key)
        if value is None:
            return None
        return Estimate(value, self.number(*path, "interval", 0), self.number(*path, "interval", 1))
