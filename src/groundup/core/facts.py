"""Looking things up in JSON that other stages, or other releases, have written: what is not there is None."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval, where that is known."""

    value: float
    low: float | None = None
    high: float | None = None


class Facts:
    """A JSON value, read by paths of keys. Each reader gives None where the value is absent or of another kind."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return bool(self._value)

    def at(self, *path: str | int) -> Any:
        """The raw value at a path of keys and positions."""
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
        """What lies under a path, to read on from there."""
        return Facts(self.at(*path))

    def number(self, *path: str | int) -> float | None:
        """A finite number."""
        value = self.at(*path)
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return value if known else None

    def count(self, *path: str | int) -> int:
        """A count; 0 where it is absent."""
        return round(self.number(*path) or 0)

    def words(self, *path: str | int) -> str:
        """A text, or a number or truth value as text; empty where it is absent."""
        value = self.at(*path)
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int | float) else ""

    def rows(self, *path: str | int) -> list[Facts]:
        """The items of a list."""
        value = self.at(*path)
        return [Facts(item) for item in value] if isinstance(value, list) else []

    def items(self, *path: str | int) -> Iterator[tuple[str, Facts]]:
        """The keys and values of a table."""
        value = self.at(*path)
        if isinstance(value, dict):
            for key, item in value.items():
                yield str(key), Facts(item)

    def estimate(self, *path: str | int, key: str = "value") -> Estimate | None:
        """A figure at `path` under `key`, with the two bounds under "interval"."""
        value = self.number(*path, key)
        if value is None:
            return None
        return Estimate(value, self.number(*path, "interval", 0), self.number(*path, "interval", 1))
