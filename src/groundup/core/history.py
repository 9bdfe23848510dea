"""Histories in the cache directory. They only improve estimates, so errors of the file system are ignored."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.errors import GroundupError
from groundup.core.files import cache_dir
from groundup.core.locks import locked


@dataclass(frozen=True, slots=True)
class History:
    """Records in a file of JSON Lines, the oldest first.

    Attributes:
        name: Path of the file, relative to the cache directory.
        max_records: Number of records above which the oldest records are dropped.
    """

    name: str
    max_records: int

    def read(self) -> list[dict[str, Any]]:
        """Return the records. Damaged lines are ignored."""
        found = []
        for line in self._lines():
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    found.append(record)
        return found

    def append(self, *records: Mapping[str, Any]) -> None:
        """Append records of JSON values. Several processes can append at the same time."""
        file = self._file
        with suppress(OSError, GroundupError), locked(file.with_suffix(".lock"), wait=True):
            lines = [*self._lines(), *map(json.dumps, records)][-self.max_records :]
            new = file.with_suffix(f".{os.getpid()}")
            new.write_text("\n".join(lines) + "\n", encoding="utf-8")
            new.replace(file)

    @property
    def _file(self) -> Path:
        return cache_dir() / self.name

    def _lines(self) -> list[str]:
        try:
            return self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
