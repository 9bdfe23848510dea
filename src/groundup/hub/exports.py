"""Paths of exported GGUF files, and the records next to them, which contain checksums."""

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
ALL_TYPES = "export.json"  # In a directory with one file per type.


def export_paths(out: Path, model: str, kind: FileType | Literal["all"]) -> dict[FileType, Path]:
    """Return the output file of each type.

    Args:
        out: file NAME.gguf, or directory for MODEL-TYPE.gguf.
        model: name of the model.
        kind: type of the matrices, or "all".

    Returns:
        Type -> file.

    Raises:
        ConfigError: `out` is invalid for this type.
    """
    kinds = FILE_TYPES if kind == "all" else (kind,)
    named = out.suffix.lower() == _SUFFIX
    wrong = "a file" if out.is_file() and not named else "a directory" if out.is_dir() and named else ""
    if wrong or (named and len(kinds) > 1):
        raise ConfigError(
            f"--out {out}: {wrong or 'one file'}",
            rule=f"a path that ends in {_SUFFIX} must be one file, any other path a directory",
            fix="Give another --out.",
        )
    if named:
        return {kinds[0]: out}
    return {each: out / f"{model}-{each}{_SUFFIX}" for each in kinds}


def finished_export(path: Path, fingerprint: str) -> Artifact | None:
    """Return the record of an export if it has the given fingerprint and all its files are intact."""
    if not path.is_file():
        return None
    try:
        made = read_record(path)
    except FormatError:  # The file of another program, or a damaged record, is overwritten.
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
    """Yield the records with the checksum of a GGUF file; groundup's files have one or more.

    Raises:
        FormatError: a record is damaged.
    """
    for path in (record_path(file), file.with_name(ALL_TYPES)):
        if path.is_file() and (made := read_record(path)).stage == STAGE and file.name in made.outputs:
            yield path, made


def require_intact_export(file: Path) -> None:
    """Verify a GGUF file by its record, if groundup wrote it.

    Raises:
        FormatError: the file or its record is damaged.
    """
    for _, made in export_records(file):
        if damaged := damaged_files(file.parent, {file.name: made.outputs[file.name]}):
            raise damage_error(file.parent, damaged)
