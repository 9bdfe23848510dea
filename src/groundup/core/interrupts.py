"""Handling of Ctrl-C: the program prints one line and ends with exit code 130."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType

EXIT_CODE = 130
_LINE = "Interrupted. Run the same command again to continue.\n"
_IMPORT = "<frozen importlib._bootstrap>"
_SHOW_CURSOR = "\x1b[?25h"  # terminal escape sequence; progress bars hide the cursor

_received = False
_ending = False


def install() -> None:
    """Install the SIGINT handler, unless the parent process ignores SIGINT (`nohup`, `command &`)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        # atexit runs handlers in reverse order, so this handler, which is registered first, runs last.
        # CPython can exit with -SIGINT even though the exception was caught.
        atexit.register(_exit_if_ending)


def received() -> bool:
    """Return whether Ctrl-C was pressed. C and Rust libraries may replace KeyboardInterrupt by another exception."""
    return _received


def report(*, below: bool = True) -> int:
    """Print the message and return the exit code. After this call, another Ctrl-C ends the process immediately.

    Args:
        below: Whether to print a newline first, because the terminal shows "^C" at the cursor position.
    """
    global _ending
    if signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(EXIT_CODE))
    _ending = True
    terminal = sys.stderr.isatty()
    sys.stderr.write(("\n" if below and terminal else "") + _LINE + (_SHOW_CURSOR if terminal else ""))
    sys.stderr.flush()
    return EXIT_CODE


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt. During an import, end the process instead.

    If torch is being imported, it catches KeyboardInterrupt during its import of numpy, and then works without numpy or
    aborts.
    """
    global _received
    _received = True
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            report()
            os._exit(EXIT_CODE)
        frame = frame.f_back
    raise KeyboardInterrupt


def _exit_if_ending() -> None:
    if not _ending:
        return
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the stream is closed, or nothing reads from the pipe
            continue
    os._exit(EXIT_CODE)
