"""Many inputs from a table: which column stands for which input, and what holds for every row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.apps.declaration import App, Input
from groundup.core.config import nearest
from groundup.core.errors import ConfigError
from groundup.data import Table, cell_text, read_table

_SHOWN = 12  # columns in a message
_SAMPLE = 200  # rows that decide whether a column holds text
_MOSTLY = 0.8  # of its cells


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of a table, ready for an application.

    Attributes:
        rows: the table's own.
        inputs: of each row, the inputs that a column or a constant gives.
        notes: what was chosen without being asked for.
    """

    rows: Sequence[Mapping[str, Any]]
    inputs: Sequence[dict[str, Any]]
    notes: tuple[str, ...]


def read_batch(
    app: App,
    path: Path,
    *,
    constants: Mapping[str, Any] | None = None,
    columns: Sequence[str] = (),
    optional: Collection[str] = (),
) -> Batch:
    """Read a table and match its columns to the inputs of an application.

    A constant holds for every row. Other inputs come from the column that `columns` names, else from the column of
    the same name, else the first input from the only column that holds text.

    Args:
        columns: "INPUT=COLUMN" each.
        optional: inputs that the model gives itself where nothing else does.

    Raises:
        ConfigError: an unknown input or column, an input given twice, or nothing for an input that is needed.
        DataError: no table.
    """
    constants = constants or {}
    table = read_table(path)
    chosen = dict(_chosen(app, table, columns, constants))
    notes = []
    for item in app.inputs:
        if item.name in chosen or (column := _same_name(item, table)) is None:
            continue
        if item.name in constants:
            notes.append(f"{item.name}: the same for every row; the column {column!r} is not read.")
        else:
            chosen[item.name] = column
    missing = [
        item for item in app.inputs if item.default is None and item.name not in (*chosen, *constants, *optional)
    ]
    if app.first in missing and (only := _only_text(table, taken=chosen.values())):
        chosen[app.first.name] = only
        missing.remove(app.first)
        if len(table.columns) > 1:
            notes.append(f"{app.first.name}: the column {only!r}, the only one that holds text.")
    if missing:
        raise _nothing_for(app, table, missing)
    kinds = {item.name: item for item in app.inputs}
    inputs = [
        {**constants, **{name: _cell(kinds[name], row[column]) for name, column in chosen.items() if column in row}}
        for row in table.rows
    ]
    return Batch(table.rows, inputs, tuple(notes))


def _chosen(app: App, table: Table, columns: Sequence[str], constants: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = [item.name for item in app.inputs]
    for given in columns:
        name, equals, column = (part.strip() for part in given.partition("="))
        option = f"--column {given}"
        if not equals or not name or not column:
            raise ConfigError(option, rule="it is INPUT=COLUMN", fix=f"Write e.g. --column {names[0]}=COLUMN.")
        if name not in names:
            match = nearest(name, names)
            fix = f"Did you mean {match}={column}?" if match else f"The inputs are {', '.join(names)}."
            raise ConfigError(option, rule=f"{name!r} is no input of {app.name}", fix=fix)
        if column not in table.columns:
            match = nearest(column, table.columns)
            fix = f"Did you mean {name}={match}?" if match else f"The columns are {_listed(table)}."
            raise ConfigError(option, rule=f"{table.name} has no column {column!r}", fix=fix)
        if name in constants:
            rule = "an input comes from a column, or is the same for every row"
            raise ConfigError(f"{option} and a value for {name}", rule=rule, fix="Leave one of the two out.")
        yield name, column


def _same_name(item: Input, table: Table) -> str | None:
    wanted = item.name.casefold()
    if item.name in table.columns:
        return item.name
    alike = (column for column in table.columns if "_".join(column.casefold().replace("-", " ").split()) == wanted)
    return next(alike, None)


def _only_text(table: Table, taken: Collection[str]) -> str | None:
    """The only column that holds text; that of a table with one column, whatever it holds."""
    if len(table.columns) == 1:
        return None if taken else table.columns[0]
    found = [column for column in table.columns if column not in taken and _holds_text(table, column)]
    return found[0] if len(found) == 1 else None


def _holds_text(table: Table, column: str) -> bool:
    """Whether most cells are of several words, with a letter: no numbers, dates, names of labels."""
    cells = [row[column] for row in table.rows[:_SAMPLE] if row.get(column) not in (None, "")]
    words = [
        cell
        for cell in cells
        if isinstance(cell, str) and len(cell.split()) > 1 and any(character.isalpha() for character in cell)
    ]
    return bool(cells) and len(words) >= _MOSTLY * len(cells)


def _nothing_for(app: App, table: Table, missing: Sequence[Input]) -> ConfigError:
    ways = []
    for item in missing:
        own = f"--{item.name.replace('_', '-')} VALUE for every row, or "
        ways.append(("" if item is app.first else own) + f"--column {item.name}=COLUMN")
    inputs = ", ".join(item.name + ("" if item.default is None else " (optional)") for item in app.inputs)
    return ConfigError(
        f"{table.name}: nothing for {', '.join(item.name for item in missing)}; its columns are {_listed(table)}",
        rule=f"the inputs of {app.name} are {inputs}",
        fix=f"Give {'; and '.join(ways)}.",
    )


def _listed(table: Table) -> str:
    more = len(table.columns) - _SHOWN
    return ", ".join(table.columns[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _cell(item: Input, value: Any) -> Any:
    """A cell as an input takes it: spreadsheets hold numbers where text is meant, and 5.0 where 5 is."""
    if item.type == "number" and isinstance(value, float) and value.is_integer():
        return int(value)
    if item.type in ("text", "line", "choice") and isinstance(value, int | float):
        return cell_text(value)
    return value
