"""`groundup replaced`: list and delete outputs that newer outputs have replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from groundup.core.artifact import Replaced, remove, replaced_in
from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count, visible

EXAMPLE = "groundup replaced runs"


class ReplacedConfig(Config):
    """Settings of `groundup replaced`."""

    directory: Path = setting(
        Path("runs"), help="Directory of all runs, directory of one run, or a replaced output", positional=True
    )
    remove: bool = setting(False, help="Delete the listed outputs", flag=True)


def run(
    config: ReplacedConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[Replaced]:
    """List replaced outputs. If the setting `remove` is true, delete them.

    Args:
        config: Settings of the command.
        console: Not used.
        on_text: Function that is called with a line for each output.
        json_lines: Whether to print one JSON object per line.

    Returns:
        The replaced outputs that were listed.

    Raises:
        DataError: The directory does not exist.
    """
    found = replaced_in(config.directory)
    if config.remove:
        for each in found:
            remove(each)
    if on_text is None:
        return found
    if json_lines:
        for each in found:
            facts = asdict(each) | {"path": str(each.path), "date": each.date.isoformat(), "removed": config.remove}
            on_text(json.dumps(facts, ensure_ascii=False) + "\n")
        return found
    for each in found:
        state = "finished" if each.finished else "unfinished"
        size = format_count(each.bytes, "bytes")
        on_text(visible(f"{each.date:%Y-%m-%d %H:%M}  {size:>10}  {each.stage:<18} {state:<10}  {each.path}") + "\n")
    total = format_count(sum(each.bytes for each in found), "bytes")
    if not found:
        on_text(f"{config.directory}: no replaced outputs.\n")
    elif config.remove:
        on_text(f"Freed {total}.\n")
    else:
        on_text(f"{total} in total. To delete them: groundup replaced {config.directory} --remove\n")
    return found
