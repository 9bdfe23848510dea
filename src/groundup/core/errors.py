"""Exceptions for problems that the user can fix.

Each error states what is wrong (`value`) and what to do about it (`fix`). A `rule` is right only if it adds a fact that
`value` does not state: a limit, a format, the reason for a refusal. Leave it out if it repeats `value` in other words.

    DataError("notes.txt: no such file", fix="Check the path.")
    ConfigError("context_length = 1", rule="must be at least 2", fix="Set context_length = 512, for example.")
"""

from __future__ import annotations

from groundup.core.redact import redacted


class GroundupError(Exception):
    """A problem that the user can fix.

    Args:
        value: What is wrong, with the name of the setting or file: "context_length = 0", "notes.zip: 0 bytes".
        rule: What must hold, if `value` does not state it: "must be at least 2".
        fix: What to do, as an instruction: "Set context_length = 512, for example." Empty if `value` contains it.
    """

    exit_code = 1

    def __init__(self, value: str, *, rule: str = "", fix: str) -> None:
        value, rule, fix = redacted(value), redacted(rule), redacted(fix)
        super().__init__(value, rule, fix)
        self.value = value
        self.rule = rule
        self.fix = fix

    @property
    def problem(self) -> str:
        """What is wrong: the value, and the rule if there is one."""
        return f"{self.value}: {self.rule}" if self.rule else self.value

    def __str__(self) -> str:
        end = "" if self.problem.endswith(("?", ".", "!")) else "."
        return f"{self.problem}{end} {self.fix}".rstrip()


class ConfigError(GroundupError):
    """An invalid recipe, override or argument."""

    exit_code = 2


class DataError(GroundupError):
    """Text, a table or a token file that cannot be read or is too small."""


class DownloadError(GroundupError):
    """A package archive that could not be resolved, fetched or verified."""


class ResourceError(GroundupError):
    """Missing disk space, memory or a device."""


class TrainingError(GroundupError):
    """A training run that cannot continue."""


class FormatError(GroundupError):
    """A file that is damaged, or has a format or version that this release does not read."""
