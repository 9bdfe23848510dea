"""`groundup model verify`: verify the checksums of all files of a model or a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console, visible
from groundup.core.errors import FormatError

if TYPE_CHECKING:
    from groundup.hub.integrity import VerificationResult

EXAMPLE = "groundup model verify runs/quickstart"


class ModelVerifyConfig(Config):
    """Settings of `groundup model verify`."""

    model: Path = setting(help="model directory, output of a stage, run, or GGUF file", positional=True)
    accept: bool = setting(False, help="accept changed files by writing new checksums", flag=True)


def run(
    config: ModelVerifyConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[VerificationResult]:
    """Verify the checksums of files. Write one line for each verified output and for each damaged file.

    Args:
        config: settings of the command.
        console: output for notes. Default: the terminal.
        on_text: function that receives the results.
        json_lines: whether to write one JSON object per verified output instead of text.

    Returns:
        One result per verified output.

    Raises:
        DataError: the path does not contain files that can be verified.
        FormatError: a file is damaged.
    """
    from groundup.hub.integrity import accept_all, verify

    found = verify(config.model)
    if config.accept:
        accepted = accept_all(found)
        found = verify(config.model) if accepted else found
        for record, names in accepted.items():
            (console or Console()).note(f"{record}: new checksums of {', '.join(names) or 'itself'}.")
    say = on_text or (lambda _: None)
    for each in found:
        say(json.dumps(each.to_json(), ensure_ascii=False) + "\n" if json_lines else _lines(each))
    damaged = [each.path / name if name else each.path for each in found for name in each.damaged]
    if damaged:
        raise FormatError(
            f"{damaged[0]}: damaged" + (f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""),
            rule="the file does not match its checksum, or has another format",
            fix="Restore the file from a backup, or delete its directory and run its stage again. If you changed "
            f"the file yourself, run: groundup model verify {shlex.quote(str(config.model))} --accept.",
        )
    return found


def _lines(each: VerificationResult) -> str:
    state = "DAMAGED" if each.damaged else "intact"
    note = f" ({each.note})" if each.note else ""
    lines = [f"{state:<8} {each.kind:<18} {each.files:>5} files  {each.path}{note}"]
    lines += [f"         {name + ': ' if name else ''}{problem}" for name, problem in each.damaged.items()]
    return visible("\n".join(lines)) + "\n"
