"""What a stage leaves next to its output: `artifact.json`, which makes `groundup run` a small build system.

A stage whose config and inputs have not changed is skipped; one that was cut off resumes. One whose config changed
works in a directory of its own and takes the place of the earlier output when it is finished. From the last artifact
the whole chain of provenance can be read.
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
