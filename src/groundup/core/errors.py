"""Errors that a stranger can act on: each names the value, the rule that it broke, and the fix."""

from __future__ import annotations

from groundup.core.redact import redacted


class GroundupError(Exception):
    """Something that the user can mend.

    Args:
        value: what was found, with its name ("context_length = 0", "notes.zip: 0 bytes").
        rule: what must hold ("a context holds at least 2 tokens").
        fix: what to do about it, as an instruction ("give context_length >= 2, e.g. 512").
    """

    exit_code = 1

    def __init__(self, value: str, *, rule: str, fix: str) -> None:
        value, rule, fix = redacted(value), redacted(rule), redacted(fix)
        super().__init__(value, rule, fix)
        self.value = value
        self.rule = rule
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.value}: {self.rule}. {self.fix}"


class ConfigError(GroundupError):
    """A recipe, an override or an argument that cannot be used."""

    exit_code = 2


class DataError(GroundupError):
    """Text, a table or a token file that cannot be read or is not enough."""


class DownloadError(GroundupError):
    """A package archive that could not be resolved, fetched or verified."""


class ResourceError(GroundupError):
    """The machine lacks disk, memory or a device that the work needs."""


class TrainingError(GroundupError):
    """A training run that cannot go on as it is."""


class FormatError(GroundupError):
    """A file that is damaged, or of a format or version that this release does not read."""
