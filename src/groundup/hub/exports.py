"""Paths of exported GGUF files and of their records. A record is a JSON file next to a GGUF file with its checksum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from groundup.core.artifact import Artifact, damage_error, read_record
from groundup.core.checksums import damaged_files
from groundup.core.errors import ConfigError, FormatError
from groundup.core.files import file_digest
from groundup.hub.gguf import FILE_TYPES, FileType

STAGE = "export.gguf"
_SUFFIX = ".gguf"
ALL_TYPES = "export.json"  # Record of an export with one file per type.


def export_paths(out: Path, model: str, kind: FileType | Literal["all"]) -> dict[FileType, Path]:
    """Return the output file of each exported type.

    Args:
        out: path of a file NAME.gguf, or a directory in which files are named MODEL-TYPE.gguf.
        model: name of the model.
        kind: GGUF type of the matrices, or "all" for all types.

    Returns:
        Type -> output file.

    Raises:
        ConfigError: `out` is a single file but `kind` is "all", or `out` has the wrong suffix.
    """
    kinds = FILE_TYPES if kind == "all" else (kind,)
    named = out.suffix.lower() == _SUFFIX
    wrong = "a file" if out.is_file() and not named else "a directory" if out.is_dir() and named else ""
    if wrong or (named and len(kinds) > 1):
        raise ConfigError(
            f"--out {out}: {wrong or 'one file'}",
            rule=f"a path that ends in {_SUFFIX} must be one file, any other path must be a directory",
            fix="Give another path with --out.",
        )
    if named:
        return {kinds[0]: out}
    return {each: out / f"{model}-{each}{_SUFFIX}" for each in kinds}


def finished_export(path: Path, fingerprint: str) -> Artifact | None:
    """Return the record of an earlier export with the same fingerprint.

    The result is None if such a record does not exist, or if a file of the export is missing or damaged.
    """
    if not path.is_file():
        return None
    try:
        made = read_record(path)
    except FormatError:  # A damaged record, or a file that another program wrote, will be overwritten.
        return None
    intact = all(
        (path.parent / name).is_file() and file_digest(path.parent / name) == digest
        for name, digest in made.outputs.items()
    )
    return made if intact and made.fingerprint == fingerprint else None


def record_path(file: Path) -> Path:
    """Return the path of the record of an exported file."""
    return file.with_name(f"{file.name}.json")


def export_records(file: Path) -> Iterator[tuple[Path, Artifact]]:
    """Yield each record that contains the checksum of a GGUF file. A file that groundup wrote has at least one record.

    Raises:
        FormatError: a record is damaged.
    """
    for path in (record_path(file), file.with_name(ALL_TYPES)):
        if path.is_file() and (made := read_record(path)).stage == STAGE and file.name in made.outputs:
            yield path, made


def require_intact_export(file: Path) -> None:
    """Verify the checksum of a GGUF file. A file that groundup did not write is not verified.

    Raises:
        FormatError: the file or its record is damaged.
    """
    for _, made in export_records(file):
        if damaged := damaged_files(file.parent, {file.name: made.outputs[file.name]}):
            raise damage_error(file.parent, damaged)
