"""The command line: each stage's options come from its config; results go to stdout, all else to stderr.

No command's `--help` imports torch, and `groundup --help` imports no stage.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from groundup.cli.commands import RUN, CommandGroup
from groundup.cli.output import as_json, write
from groundup.core import interrupts
from groundup.core.errors import ConfigError, GroundupError, ResourceError
from groundup.core.redact import redacted


@click.group(
    cls=CommandGroup,
    help="Build a language model of your own, from raw text to a model that writes.",
    epilog=RUN.example,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="groundup", prog_name="groundup", message="%(prog)s %(version)s")
def cli() -> None:
    """The root of all commands."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point.

    Exits with 0 when done, 1 when failed with a message, 2 for wrong usage, 130 when interrupted. With
    `--json` a failure is also an object on stdout.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    json_wanted = "--json" in given  # asked before parsing: wrong usage is reported as JSON, too
    if hasattr(sys.stdout, "reconfigure"):  # a model may write what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="replace")
    try:
        code = cli.main(args=given, prog_name="groundup", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt) as error:
        interrupted = isinstance(error, click.Abort | KeyboardInterrupt) or interrupts.received()
        # click has begun a new line where it saw the interrupt
        code = (
            interrupts.report(below=not isinstance(error, click.Abort)) if interrupted else _code_of(error, json_wanted)
        )
    sys.exit(code)


def _code_of(error: BaseException, json_wanted: bool) -> int:
    """Report what ended a command; return its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
        return 2
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "groundup"
        rule, fix = "a command needs arguments that it knows", f"See: {command} --help"
        return _fail(ConfigError(error.format_message().rstrip("."), rule=rule, fix=fix), json_wanted)
    if isinstance(error, GroundupError):
        return _fail(error, json_wanted)
    if isinstance(error, BrokenPipeError):  # the reader of the output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError):
        return _fail_of_system(error, json_wanted)
    return _fail_of_ours(error, json_wanted)


def _fail(error: GroundupError, json_wanted: bool) -> int:
    from groundup.core.console import Console

    Console().error(error)
    if json_wanted:
        kind = type(error).__name__
        write(as_json({"error": {"kind": kind, "value": error.value, "rule": error.rule, "fix": error.fix}}))
    return error.exit_code


_DISK_FULL = "Free some space, or choose another disk; then give the same command again."
_NOT_ALLOWED = "Change its permissions, or choose another place."
_ANOTHER_PATH = "Check this path, or choose another one."
_SYSTEM_FIXES: Mapping[int, str] = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f), or choose a disk that takes larger files.",
    errno.EIO: "The disk reports an error: check it, or choose another one.",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
    errno.ENOTDIR: "A part of this path is a file: choose another place.",
    errno.EEXIST: "A file is where a directory belongs, or the reverse: choose another place.",
    errno.EISDIR: "This is a directory: give the path of a file.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EBUSY: "The system or another program holds this: choose another place, e.g. a new directory.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or use fewer workers.",
    errno.ENOMEM: "Close other programs, or give the work less to hold at a time.",
}


def _fail_of_system(error: OSError, json_wanted: bool) -> int:
    fix = _SYSTEM_FIXES.get(error.errno or 0, _ANOTHER_PATH if error.filename is not None else None)
    if fix is None:  # nothing that the user named: what went wrong is ours
        return _fail_of_ours(error, json_wanted)
    value = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)
    rule = "input must be readable, and output needs a place to go"
    return _fail(ResourceError(value, rule=rule, fix=fix), json_wanted)


def _fail_of_ours(error: BaseException, json_wanted: bool) -> int:
    sys.stderr.write(redacted("".join(traceback.format_exception(error))))
    sys.stderr.write("\nThis is a mistake in groundup. Please report it with the lines above (CONTRIBUTING.md).\n")
    if json_wanted:
        write(as_json({"error": {"kind": type(error).__name__, "value": redacted(str(error))}}))
    return 1
