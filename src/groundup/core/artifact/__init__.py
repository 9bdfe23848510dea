"""Artifacts: the file `artifact.json` in each output directory describes how the output was made.

`groundup run` works like a build system. It skips a stage whose config and inputs are unchanged, and resumes an
interrupted stage. If the config changed, the stage writes to a new directory. When the stage finishes, this directory
replaces the earlier output. The artifacts of a run record the provenance of each output.
"""

from groundup.core.artifact.record import (
    ARTIFACT,
    FORMAT_VERSION,
    REPLACED_INFIX,
    STARTED,
    Artifact,
    accept,
    damage_error,
    fingerprint_of,
    outputs_in,
    read,
    read_intact,
    read_record,
    record,
    require_intact,
    write_record,
)
from groundup.core.artifact.replaced import Replaced, remove, replaced_in
from groundup.core.artifact.work import Work, begin, working_directory

__all__ = [
    "ARTIFACT",
    "FORMAT_VERSION",
    "REPLACED_INFIX",
    "STARTED",
    "Artifact",
    "Replaced",
    "Work",
    "accept",
    "begin",
    "damage_error",
    "fingerprint_of",
    "outputs_in",
    "read",
    "read_intact",
    "read_record",
    "record",
    "remove",
    "replaced_in",
    "require_intact",
    "working_directory",
    "write_record",
]
