"""`groundup model verify`: compare every file of a model or a run with its checksum."""

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
    from groundup.hub.integrity import Verified

EXAMPLE = "groundup model verify runs/quickstart"


class ModelVerifyConfig(Config):
    """What to verify."""

    model: Path = setting(help="a model, the output of a stage, a run, or a GGUF file", positional=True)
    accept: bool = setting(False, help="take changed files as they are: write new checksums", flag=True)


def run(
    config: ModelVerifyConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[Verified]:
    """Verify; `on_text` receives a line for each output and each damaged file, or a JSON object for each output.

    Raises:
        DataError: Nothing there that can be verified.
        FormatError: A file is damaged.
    """
    from groundup.hub.integrity import accept_all, verify

    found = verify(config.model)
    if config.accept:
        accepted = accept_all(found)
        found = verify(config.model) if accepted else found
        for record, names in accepted.items():
            (console or Console()).note(f"{record} has new checksums of: {', '.join(names) or 'itself'}.")
    say = on_text or (lambda _: None)
    for each in found:
        say(json.dumps(each.to_json(), ensure_ascii=False) + "\n" if json_lines else _lines(each))
    damaged = [each.path / name if name else each.path for each in found for name in each.damaged]
    if damaged:
        raise FormatError(
            f"{damaged[0]}: damaged" + (f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""),
            rule="a file does not match its checksum",
            fix="Restore it from a copy, or delete its directory and run the stage that wrote it again. If you changed "
            f"it yourself: groundup model verify {shlex.quote(str(config.model))} --accept.",
        )
    return found


def _lines(each: Verified) -> str:
    state = "DAMAGED" if each.damaged else "intact"
    note = f" ({each.note})" if each.note else ""
    lines = [f"{state:<8} {each.kind:<18} {each.files:>5} files  {each.path}{note}"]
    lines += [f"         {name + ': ' if name else ''}{trouble}" for name, trouble in each.damaged.items()]
    return visible("\n".join(lines)) + "\n"
