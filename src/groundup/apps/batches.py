"""Inputs of applications that are read from a table, and the mapping from columns to inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.apps.declaration import App, Input
from groundup.core.config import nearest
from groundup.core.errors import ConfigError
from groundup.data import Table, cell_text, read_table

_MAX_SHOWN = 12  # maximum number of columns that a message lists
_SAMPLE_ROWS = 200  # number of rows that are examined to detect a text column
_MIN_TEXT_CELLS = 0.8  # minimum fraction of cells that contain text in a text column


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of a table, with the inputs of an application for each row.

    Attributes:
        rows: Rows of the table.
        inputs: Inputs for each row. They are taken from the columns and from the constants.
        columns: Maps inputs to the columns that contain them.
        notes: Messages about columns that were selected automatically or ignored.
    """

    rows: Sequence[Mapping[str, Any]]
    inputs: Sequence[dict[str, Any]]
    columns: Mapping[str, str]
    notes: tuple[str, ...]


def read_batch(
    app: App,
    path: Path,
    *,
    constants: Mapping[str, Any] | None = None,
    columns: Sequence[str] = (),
    optional: Collection[str] = (),
) -> Batch:
    """Read a table and map its columns to the inputs of an application.

    Constants apply to all rows. Another input is read from the column that `columns` selects, otherwise from the column
    with the same name. If the first input has no such column, it is read from the text column, provided that the table
    has exactly one.

    Args:
        app: Application that receives the inputs.
        path: File that contains the table.
        constants: Maps input names to values that are the same for all rows.
        columns: Selected columns, each in the form "INPUT=COLUMN".
        optional: Names of inputs that may be missing, because the model provides them.

    Raises:
        ConfigError: An input or a column is unknown, an input has two sources, or a required input is missing.
        DataError: The file is not a table.
    """
    constants = constants or {}
    table = read_table(path)
    chosen = dict(_chosen(app, table, columns, constants))
    notes = []
    for item in app.inputs:
        if item.name in chosen or (column := _same_name(item, table)) is None:
            continue
        if item.name in constants:
            notes.append(f"{item.name}: the same for all rows; ignoring the column {column!r}.")
        else:
            chosen[item.name] = column
    missing = [
        item for item in app.inputs if item.default is None and item.name not in (*chosen, *constants, *optional)
    ]
    if app.first in missing and (only := _only_text(table, taken=chosen.values())):
        chosen[app.first.name] = only
        missing.remove(app.first)
        if len(table.columns) > 1:
            notes.append(f"{app.first.name}: using {only!r}, the only text column.")
    if missing:
        raise _missing_inputs(app, table, missing)
    kinds = {item.name: item for item in app.inputs}
    inputs = [
        {**constants, **{name: _cell(kinds[name], row[column]) for name, column in chosen.items() if column in row}}
        for row in table.rows
    ]
    return Batch(table.rows, inputs, chosen, tuple(notes))


def _chosen(app: App, table: Table, columns: Sequence[str], constants: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = [item.name for item in app.inputs]
    for given in columns:
        name, equals, column = (part.strip() for part in given.partition("="))
        option = f"--column {given}"
        if not equals or not name or not column:
            raise ConfigError(option, rule="must be INPUT=COLUMN", fix=f"Write e.g. --column {names[0]}=COLUMN.")
        if name not in names:
            match = nearest(name, names)
            fix = f"Did you mean {match}={column}?" if match else f"The inputs are {', '.join(names)}."
            raise ConfigError(option, rule=f"{app.name} has no input {name!r}", fix=fix)
        if column not in table.columns:
            match = nearest(column, table.columns)
            fix = f"Did you mean {name}={match}?" if match else f"The columns are {_listed(table)}."
            raise ConfigError(option, rule=f"{table.name} has no column {column!r}", fix=fix)
        if name in constants:
            raise ConfigError(f"{option}: the input {name} also has a constant value", fix="Remove one of them.")
        yield name, column


def _same_name(item: Input, table: Table) -> str | None:
    wanted = item.name.casefold()
    if item.name in table.columns:
        return item.name
    similar = (column for column in table.columns if "_".join(column.casefold().replace("-", " ").split()) == wanted)
    return next(similar, None)


def _only_text(table: Table, taken: Collection[str]) -> str | None:
    """Return the only text column of a table, or None. If the table has only one column, return that column."""
    if len(table.columns) == 1:
        return None if taken else table.columns[0]
    found = [column for column in table.columns if column not in taken and _holds_text(table, column)]
    return found[0] if len(found) == 1 else None


def _holds_text(table: Table, column: str) -> bool:
    """Return whether most cells of a column contain several words. Numbers, dates and labels do not count."""
    cells = [row[column] for row in table.rows[:_SAMPLE_ROWS] if row.get(column) not in (None, "")]
    words = [
        cell
        for cell in cells
        if isinstance(cell, str) and len(cell.split()) > 1 and any(character.isalpha() for character in cell)
    ]
    return bool(cells) and len(words) >= _MIN_TEXT_CELLS * len(cells)


def _missing_inputs(app: App, table: Table, missing: Sequence[Input]) -> ConfigError:
    options = []
    for item in missing:
        own = f"--{item.name.replace('_', '-')} VALUE for all rows, or "
        options.append(("" if item is app.first else own) + f"--column {item.name}=COLUMN")
    inputs = ", ".join(item.name + ("" if item.default is None else " (optional)") for item in app.inputs)
    return ConfigError(
        f"{table.name}: no column for {', '.join(item.name for item in missing)}; its columns are {_listed(table)}",
        rule=f"the inputs of {app.name} are {inputs}",
        fix=f"Give {'; and '.join(options)}.",
    )


def _listed(table: Table) -> str:
    more = len(table.columns) - _MAX_SHOWN
    return ", ".join(table.columns[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _cell(item: Input, value: Any) -> Any:
    """Convert a table cell to a value for an input. Spreadsheets may store text as numbers, and 5 as 5.0."""
    if item.type == "number" and isinstance(value, float) and value.is_integer():
        return int(value)
    if item.type in ("text", "line", "choice") and isinstance(value, int | float):
        return cell_text(value)
    return value
