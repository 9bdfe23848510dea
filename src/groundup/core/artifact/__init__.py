"""Artifacts: the record `artifact.json` in each output, which makes `groundup run` a small build system.

A stage is skipped if its config and inputs are unchanged, and an interrupted stage resumes. If the config changed, the
stage writes to a new directory, which replaces the earlier output when the stage finishes. The artifacts of a run
record the provenance of each output.
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
