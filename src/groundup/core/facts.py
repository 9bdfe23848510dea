"""Typed lookup in JSON records that other stages or other releases wrote."""

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
        low: Lower bound of the interval, or None if unknown.
        high: Upper bound of the interval, or None if unknown.
    """

    value: float
    low: float | None = None
    high: float | None = None


class Facts:
    """A JSON value whose nested values are looked up by path and type.

    If a value is missing or has another type, the methods return None or an empty value instead of raising an error.

    Args:
        value: The JSON value that contains the nested values.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return bool(self._value)

    def at(self, *path: str | int) -> Any:
        """Return the nested value at a path of keys and list indices, or None if it is missing."""
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
        """Return the nested value at a path, wrapped in `Facts`."""
        return Facts(self.at(*path))

    def number(self, *path: str | int) -> float | None:
        """Return the finite number at a path, or None if the value is missing or is not a finite number."""
        value = self.at(*path)
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if known else None

    def count(self, *path: str | int) -> int:
        """Return the number at a path, rounded to an integer, or 0 if it is missing."""
        return round(self.number(*path) or 0)

    def words(self, *path: str | int) -> str:
        """Return the string at a path. Numbers and Booleans are converted to strings; a missing value is ""."""
        value = self.at(*path)
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int | float) else ""

    def rows(self, *path: str | int) -> list[Facts]:
        """Return the items of the list at a path, each wrapped in `Facts`."""
        value = self.at(*path)
        return [Facts(item) for item in value] if isinstance(value, list) else []

    def items(self, *path: str | int) -> Iterator[tuple[str, Facts]]:
        """Yield the keys and values of the object at a path."""
        value = self.at(*path)
        if isinstance(value, dict):
            for key, item in value.items():
                yield str(key), Facts(item)

    def estimate(self, *path: str | int, key: str = "value") -> Estimate | None:
        """Return the estimate at a path: the number under `key` and the bounds in the list under "interval"."""
        value = self.number(*path, key)
        if value is None:
            return None
        return Estimate(value, self.number(*path, "interval", 0), self.number(*path, "interval", 1))
