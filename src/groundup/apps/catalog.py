"""Where applications are found: in this package, and in a folder of the user's own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.apps.declaration import App
from groundup.apps.inputs import check_inputs
from groundup.core.config import load, nearest, read_toml
from groundup.core.errors import ConfigError, DataError, GroundupError

if TYPE_CHECKING:
    from groundup.core.console import Console

DECLARED = Path(__file__).with_name("declared")
OWN = Path("apps")  # looked into where nobody names a folder


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """An application with the file that declares it."""

    app: App
    path: Path

    def test_rows(self) -> list[dict[str, Any]]:
        """The rows of its test set, inputs checked; none without one.

        Raises:
            DataError: no such file, or a row that is none.
            ConfigError: an input that the application would refuse.
        """
        if self.app.test is None:
            return []
        path = self.path.with_name(self.app.test.file)
        if not path.is_file():
            raise DataError(f"{path}: no such file", rule="a test set lies beside its application", fix="Put it there.")
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
                    rule="each line is a JSON object with the inputs and output",
                    fix="Correct it.",
                ) from None
            except GroundupError as error:
                raise ConfigError(f"{path}, line {number}: {error.value}", rule=error.rule, fix=error.fix) from None


class Catalog(Mapping[str, CatalogEntry]):
    """Applications by their names, in the order of their groups and names; the user's own go before ours.

    Args:
        folder: of `*.toml` files; None: `./apps` where there is one.

    Attributes:
        refused: file -> why it is none of them: it declares no application, or one of a name that was there.

    Raises:
        DataError: no such folder.
    """

    refused: Mapping[Path, ConfigError]

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder}: no such folder", rule="--apps names a folder of .toml files", fix="Check it.")
        found, _ = _read(DECLARED)
        self.refused = {}
        own = folder if folder is not None else OWN if OWN.is_dir() else None
        if own is not None:
            theirs, self.refused = _read(own)
            found |= theirs
        groups = ("create", "understand", "teach")
        self._found = dict(sorted(found.items(), key=lambda item: (groups.index(item[1].app.group), item[0])))

    def __getitem__(self, name: str) -> CatalogEntry:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def require_valid(self, name: str) -> None:
        """See that no refused file is called so: even if one of ours is, that is not what was meant.

        Raises:
            ConfigError: one is; with what is wrong in it.
        """
        for path, error in self.refused.items():
            if path.stem == name:
                raise error

    def named(self, name: str) -> CatalogEntry:
        """The application of that name.

        Raises:
            ConfigError: there is none; the nearest one is named. Or its file was refused.
        """
        self.require_valid(name)
        if name in self._found:
            return self._found[name]
        match = nearest(name, self._found)
        fix = f"Did you mean {match}?" if match else f"There are: {', '.join(self._found)}."
        raise ConfigError(
            f"application {name[:80]!r}", rule="an application is one of ours, or declared in --apps DIR", fix=fix
        )


def _read(folder: Path) -> tuple[dict[str, CatalogEntry], dict[Path, ConfigError]]:
    """The applications of a folder by name, and what else is there; nothing that lies there stops the others."""
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
                f"{path}: another application called {app.name!r}",
                rule="each has a name of its own",
                fix=f"Rename it, or the one in {found[app.name].path.name}.",
            )
            continue
        found[app.name] = CatalogEntry(app, path)
    return found, refused


def open_catalog(folder: Path | None, console: Console) -> Catalog:
    """Return all applications (see `Catalog`), with a warning about each file that declares none."""
    catalog = Catalog(folder)
    for error in catalog.refused.values():
        console.warn(f"left out: {error}")
    return catalog
