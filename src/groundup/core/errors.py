"""Exceptions for problems that the user can fix.

Each error states what is wrong (`value`) and what the user can do about it (`fix`). Give a `rule` only if it adds a
fact that `value` does not state, such as a limit, a format or the reason for a refusal.

    DataError("notes.txt: no such file", fix="Check the path.")
    ConfigError("context_length = 1", rule="must be at least 2", fix="Set context_length = 512, for example.")
"""

from __future__ import annotations

from groundup.core.redact import redacted


class GroundupError(Exception):
    """Base class of errors that the user can fix.

    Args:
        value: What is wrong, including the name of the setting or file, such as "context_length = 0" or "notes.zip: 0
            bytes".
        rule: The requirement that is violated, such as "must be at least 2". Empty if `value` already states it.
        fix: Instruction to the user, such as "Set context_length = 512, for example." Empty if `value` already contains
            it.
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
        """Description of the problem: the value, followed by the rule if there is a rule."""
        return f"{self.value}: {self.rule}" if self.rule else self.value

    def __str__(self) -> str:
        end = "" if self.problem.endswith(("?", ".", "!")) else "."
        return f"{self.problem}{end} {self.fix}".rstrip()


class ConfigError(GroundupError):
    """The recipe, an override or a command-line argument is invalid."""

    exit_code = 2


class DataError(GroundupError):
    """Text, a table or a token file cannot be read, or contains too little data."""


class DownloadError(GroundupError):
    """A package archive could not be resolved, downloaded or verified."""


class ResourceError(GroundupError):
    """There is not enough disk space or memory, or a device is not available."""


class TrainingError(GroundupError):
    """Training cannot continue."""


class FormatError(GroundupError):
    """A file is damaged, or has a format or version that this release cannot read."""
