"""Entry point of the command line. Options come from the configs; results go to stdout, and messages to stderr.

The `--help` option of a command does not import torch, and `groundup --help` does not import any stage.
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
    help="Build a language model from raw text: collect, tokenize, pretrain, fine-tune, evaluate, serve.",
    epilog=RUN.example,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="groundup", prog_name="groundup", message="%(prog)s %(version)s")
def cli() -> None:
    """Run the root command."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and end the process with an exit code.

    The exit code is 0 for success, 1 for an error, 2 for incorrect usage and 130 for an interrupt. With `--json`, an
    error is also printed to stdout as a JSON object.

    Args:
        arguments: Command-line arguments. Default: `sys.argv[1:]`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    json_wanted = "--json" in given  # read before parsing, because usage errors are also reported as JSON
    if hasattr(sys.stdout, "reconfigure"):  # the encoding of stdout may not support all generated characters
        sys.stdout.reconfigure(errors="replace")
    try:
        code = cli.main(args=given, prog_name="groundup", standalone_mode=False) or 0
    except (Exception, KeyboardInterrupt) as error:
        interrupted = isinstance(error, click.Abort | KeyboardInterrupt) or interrupts.received()
        # click has already printed a newline if it raised Abort.
        code = (
            interrupts.report(below=not isinstance(error, click.Abort)) if interrupted else _code_of(error, json_wanted)
        )
    sys.exit(code)


def _code_of(error: BaseException, json_wanted: bool) -> int:
    """Report an error to the user and return the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(error.format_message() + "\n")
        return 2
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "groundup"
        return _fail(ConfigError(error.format_message().rstrip("."), fix=f"See: {command} --help"), json_wanted)
    if isinstance(error, GroundupError):
        return _fail(error, json_wanted)
    if isinstance(error, BrokenPipeError):  # the program that reads our output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError):
        return _fail_with_system_error(error, json_wanted)
    return _fail_with_traceback(error, json_wanted)


def _fail(error: GroundupError, json_wanted: bool) -> int:
    from groundup.core.console import Console

    Console().error(error)
    if json_wanted:
        kind = type(error).__name__
        write(as_json({"error": {"kind": kind, "value": error.value, "rule": error.rule, "fix": error.fix}}))
    return error.exit_code


_DISK_FULL = "Free some space or choose another disk, then run the same command again."
_NOT_ALLOWED = "Change its permissions, or choose another path."
_ANOTHER_PATH = "Check this path, or choose another one."
_SYSTEM_FIXES: Mapping[int, str] = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EFBIG: "Raise the limit on file sizes (ulimit -f), or choose a file system that supports larger files.",
    errno.EIO: "The disk reported an error: check it, or choose another disk.",
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EROFS: _NOT_ALLOWED,
    errno.ENOTDIR: "A part of this path is a file: choose another path.",
    errno.EEXIST: "A file is in the place of a directory, or the reverse: choose another path.",
    errno.EISDIR: "This is a directory: give the path of a file.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EBUSY: "Another program uses this: choose another path, such as a new directory.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or use fewer workers.",
    errno.ENOMEM: "Close other programs, or reduce the batch size or the number of workers.",
}


def _fail_with_system_error(error: OSError, json_wanted: bool) -> int:
    fix = _SYSTEM_FIXES.get(error.errno or 0, _ANOTHER_PATH if error.filename is not None else None)
    if fix is None:  # the error is not about a path that the user gave, so it is a bug
        return _fail_with_traceback(error, json_wanted)
    value = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error.strerror)
    return _fail(ResourceError(value, fix=fix), json_wanted)


def _fail_with_traceback(error: BaseException, json_wanted: bool) -> int:
    sys.stderr.write(redacted("".join(traceback.format_exception(error))))
    sys.stderr.write("\nThis is a bug in groundup. Please report it with the lines above (CONTRIBUTING.md).\n")
    if json_wanted:
        write(as_json({"error": {"kind": type(error).__name__, "value": redacted(str(error))}}))
    return 1
