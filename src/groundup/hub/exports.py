"""The paths of exported GGUF files, and the records next to them, which hold their checksums."""

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
ALL_TYPES = "export.json"  # of a directory that holds a file of each type


def export_paths(out: Path, model: str, kind: FileType | Literal["all"]) -> dict[FileType, Path]:
    """Return the file of each type that an export writes.

    Args:
        out: the file, NAME.gguf; or a directory, which gets MODEL-TYPE.gguf.
        model: the model's name.
        kind: the type of the matrices, or "all".

    Raises:
        ConfigError: a name that cannot take the file.
    """
    kinds = FILE_TYPES if kind == "all" else (kind,)
    named = out.suffix.lower() == _SUFFIX
    wrong = "a file" if out.is_file() and not named else "a directory" if out.is_dir() and named else ""
    if wrong or (named and len(kinds) > 1):
        raise ConfigError(
            f"--out {out}: {wrong or 'one file'}",
            rule=f"a name that ends in {_SUFFIX} is that of the file, any other that of the directory for it",
            fix="Give another --out.",
        )
    if named:
        return {kinds[0]: out}
    return {each: out / f"{model}-{each}{_SUFFIX}" for each in kinds}


def finished_export(path: Path, fingerprint: str) -> Artifact | None:
    """Return the record of an export if its fingerprint is the given one and all its files are intact."""
    if not path.is_file():
        return None
    try:
        made = read_record(path)
    except FormatError:  # another program's file, or a damaged record: it is written again
        return None
    intact = all(
        (path.parent / name).is_file() and file_digest(path.parent / name) == digest
        for name, digest in made.outputs.items()
    )
    return made if intact and made.fingerprint == fingerprint else None


def record_path(file: Path) -> Path:
    """Return where the record of one exported file is."""
    return file.with_name(f"{file.name}.json")


def export_records(file: Path) -> Iterator[tuple[Path, Artifact]]:
    """Yield the records that hold the checksum of a GGUF file; none of a file that groundup did not write.

    Raises:
        FormatError: A record is damaged.
    """
    for path in (record_path(file), file.with_name(ALL_TYPES)):
        if path.is_file() and (made := read_record(path)).stage == STAGE and file.name in made.outputs:
            yield path, made


def require_intact_export(file: Path) -> None:
    """Verify a GGUF file by its record, if groundup wrote it.

    Raises:
        FormatError: The file or its record is damaged.
    """
    for _, made in export_records(file):
        if damaged := damaged_files(file.parent, {file.name: made.outputs[file.name]}):
            raise damage_error(file.parent, damaged)
