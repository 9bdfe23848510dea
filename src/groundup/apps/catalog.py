"""The catalog of applications, from this package and from the user's directory."""

from __future__ import annotations

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
OWN = Path("apps")  # default directory of the user's applications


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """An application with its file.

    Attributes:
        app: The application.
        path: File with the declaration.
    """

    app: App
    path: Path

    def test_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the test set, with validated inputs. Without a test set, there are no rows.

        Raises:
            DataError: The file does not exist, or a row is invalid.
            ConfigError: An input is invalid.
        """
        if self.app.test is None:
            return []
        path = self.path.with_name(self.app.test.file)
        if not path.is_file():
            raise DataError(f"{path}: no such file", fix="Put the test set next to the file of its application.")
        return list(self._rows(path))

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                output = row.pop("output")
                yield check_inputs(self.app, row) | {"output": output}
            except (ValueError, AttributeError, KeyError, TypeError):
                raise DataError(
                    f"{path}, line {number}",
                    rule="each line must be a JSON object with the inputs and output",
                    fix="Correct this line.",
                ) from None
            except GroundupError as error:
                raise ConfigError(f"{path}, line {number}: {error.value}", rule=error.rule, fix=error.fix) from None


class Catalog(Mapping[str, CatalogEntry]):
    """Applications by name, ordered by group. The user's applications replace bundled ones of the same name.

    Args:
        folder: Directory of `*.toml` files. Default: `./apps`, if it exists.

    Attributes:
        refused: File -> error, for files that are invalid or have the name of another application.

    Raises:
        DataError: The directory does not exist.
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
        """Check that no invalid file has this name, since it would replace the bundled application.

        Args:
            name: Name of the application.

        Raises:
            ConfigError: The file is invalid.
        """
        for path, error in self.refused.items():
            if path.stem == name:
                raise error

    def named(self, name: str) -> CatalogEntry:
        """Return the application with a name.

        Args:
            name: Name of the application.

        Raises:
            ConfigError: No application has this name, or its file is invalid.
        """
        self.require_valid(name)
        if name in self._found:
            return self._found[name]
        raise unknown_name("application", name[:80], list(self._found))


def _read(folder: Path) -> tuple[dict[str, CatalogEntry], dict[Path, ConfigError]]:
    """Return the applications in a directory, and the errors of invalid files."""
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
    """Return the catalog, and print a warning for each invalid file.

    Args:
        folder: Directory of `*.toml` files. Default: `./apps`, if it exists.
        console: Console for the warnings.
    """
    catalog = Catalog(folder)
    for error in catalog.refused.values():
        console.warn(f"skipped: {error}")
    return catalog
