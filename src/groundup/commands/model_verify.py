"""`groundup model verify`: verify the files of a model or a run by their checksums."""

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

    model: Path = setting(help="model, output of a stage, run, or GGUF file", positional=True)
    accept: bool = setting(False, help="accept changed files: write new checksums", flag=True)


def run(
    config: ModelVerifyConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[VerificationResult]:
    """Verify files; `on_text` receives a line per output and damaged file, or one JSON object per output.

    Args:
        config: settings.
        console: output for notes; default: the terminal.
        on_text: receives the results.
        json_lines: write JSON lines instead of text.

    Returns:
        The results.

    Raises:
        DataError: the path holds nothing to verify.
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
            rule="the file does not match its checksum",
            fix="Restore it from a backup, or delete its directory and run its stage again. If you changed "
            f"it yourself: groundup model verify {shlex.quote(str(config.model))} --accept.",
        )
    return found


def _lines(each: VerificationResult) -> str:
    state = "DAMAGED" if each.damaged else "intact"
    note = f" ({each.note})" if each.note else ""
    lines = [f"{state:<8} {each.kind:<18} {each.files:>5} files  {each.path}{note}"]
    lines += [f"         {name + ': ' if name else ''}{problem}" for name, problem in each.damaged.items()]
    return visible("\n".join(lines)) + "\n"
