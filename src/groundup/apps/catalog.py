"""Catalog of applications, which contains the bundled applications and those in the user's directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.apps.declaration import App
from groundup.apps.inputs import check_inputs
from groundup.core.config import load, read_toml, unknown_name
from groundup.core.errors import ConfigError, DataError, GroundupError

if TYPE_CHECKING:
    from groundup.core.console import Console

DECLARED = Path(__file__).with_name("declared")
OWN = Path("apps")  # default directory for the user's applications


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """An application and the file that declares it.

    Attributes:
        app: The declared application.
        path: File that declares the application.
        own_test: Test set that replaces the declared one, or None.
    """

    app: App
    path: Path
    own_test: Path | None = None

    @property
    def test_path(self) -> Path | None:
        """File of the test set, or None if there is none."""
        if self.app.test is None:
            return None
        return self.own_test or self.path.with_name(self.app.test.file)

    def test_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the test set with validated inputs. If there is no test set, return an empty list.

        Raises:
            DataError: The file of the test set does not exist, or a row is invalid.
            ConfigError: An input in a row is invalid.
        """
        path = self.test_path
        if path is None:
            return []
        if not path.is_file():
            fix = "Check --test." if self.own_test else "Put the test set next to the file of its application."
            raise DataError(f"{path}: no such file", fix=fix)
        rows = list(self._rows(path))
        if not rows:
            raise DataError(f"{path}: no examples", fix="Write one JSON object per line, with the inputs and output.")
        return rows

    @property
    def _has_checks(self) -> bool:
        return self.app.test is not None and self.app.test.metric == "checks"

    @property
    def test_digest(self) -> str:
        """Digest of the declaration and the test set, which identifies what a stored score has measured."""
        files = [self.path, *([self.test_path] if self.test_path else [])]
        return hashlib.blake2b(
            b"\0".join(path.read_bytes() for path in files if path.is_file()), digest_size=16
        ).hexdigest()

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                output = row.pop("output", "") if self._has_checks else row.pop("output")
                yield check_inputs(self.app, row) | {"output": output}
            except (ValueError, AttributeError, KeyError, TypeError):
                inputs = ", ".join(each.name for each in self.app.inputs)
                raise DataError(
                    f"{path}, line {number}",
                    rule=f"each line must be a JSON object with the inputs ({inputs}) and output",
                    fix="Correct this line.",
                ) from None
            except GroundupError as error:
                raise ConfigError(f"{path}, line {number}: {error.value}", rule=error.rule, fix=error.fix) from None


class Catalog(Mapping[str, CatalogEntry]):
    """Maps names to applications, sorted by group. The user's applications replace bundled ones of the same name.

    Args:
        folder: Directory with the user's `*.toml` files. Default: `./apps`, if this directory exists.

    Attributes:
        refused: Maps files to errors. A file is listed here if it is invalid, or if its application's name is already
            used.

    Raises:
        DataError: The given directory does not exist.
    """

    refused: Mapping[Path, ConfigError]

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder}: no such directory", fix="Give a directory of .toml files to --apps.")
        found, _ = _read(DECLARED)
        self.refused = {}
        own = folder if folder is not None else OWN if OWN.is_dir() else None
        if own is not None:
            users, self.refused = _read(own)
            found |= users
        groups = ("create", "understand", "teach")
        self._found = dict(sorted(found.items(), key=lambda item: (groups.index(item[1].app.group), item[0])))

    def __getitem__(self, name: str) -> CatalogEntry:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def require_valid(self, name: str) -> None:
        """Raise the error of an invalid file if this file would have replaced the bundled application with this name.

        Args:
            name: Name of the application.

        Raises:
            ConfigError: The file that declares the application is invalid.
        """
        for path, error in self.refused.items():
            if path.stem == name:
                raise error

    def named(self, name: str) -> CatalogEntry:
        """Return the application with the given name.

        Args:
            name: Name of the application.

        Raises:
            ConfigError: No application has this name, or the file of the application is invalid.
        """
        self.require_valid(name)
        if name in self._found:
            return self._found[name]
        raise unknown_name("application", name[:80], list(self._found))


def _read(folder: Path) -> tuple[dict[str, CatalogEntry], dict[Path, ConfigError]]:
    """Return the applications in a directory, and the errors for invalid files."""
    found: dict[str, CatalogEntry] = {}
    refused: dict[Path, ConfigError] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            app = load(App, read_toml(path), str(path))
        except ConfigError as error:
            refused[path] = error
            continue
        if app.name in found:
            refused[path] = ConfigError(
                f"{path}: {found[app.name].path.name} already has the name {app.name!r}",
                fix="Rename one of the applications.",
            )
            continue
        found[app.name] = CatalogEntry(app, path)
    return found, refused


def open_catalog(folder: Path | None, console: Console) -> Catalog:
    """Return the catalog of applications, and print a warning for each invalid file.

    Args:
        folder: Directory with the user's `*.toml` files. Default: `./apps`, if this directory exists.
        console: Console for the warnings.
    """
    catalog = Catalog(folder)
    for error in catalog.refused.values():
        console.warn(f"skipped: {error}")
    return catalog
