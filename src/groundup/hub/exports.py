"""The records next to exported GGUF files, which hold their checksums."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup.core.artifact import Artifact, damage, read_record
from groundup.core.checksums import damaged_files

STAGE = "export.gguf"
ALL_TYPES = "export.json"  # of a directory that holds a file of each type


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
            raise damage(file.parent, damaged)
