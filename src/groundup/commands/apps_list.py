"""`groundup apps list`: list the applications."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.apps import open_catalog
from groundup.core.config import Config, setting
from groundup.core.console import Console, print_now, visible

EXAMPLE = "groundup apps list summarize"


class AppsListConfig(Config):
    """Settings of `groundup apps list`."""

    name: str = setting("", help="Application whose inputs are shown; default: list all applications", positional=True)
    apps: Path | None = setting(None, help="Directory with your applications; default: ./apps", flag=True)


def run(
    config: AppsListConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> list[dict[str, Any]]:
    """List all applications, or show one application with its inputs.

    Args:
        config: Settings of the command.
        console: Console for warnings.
        on_text: Function that is called with each line.
        json_lines: Whether to print one JSON object per line.

    Returns:
        The declaration of each application.

    Raises:
        ConfigError: The application is unknown, or the file that declares it is invalid.
    """
    catalog = open_catalog(config.apps, console or Console())
    chosen = [catalog.named(config.name)] if config.name else list(catalog.values())
    descriptions = [found.app.describe() for found in chosen]
    for each in descriptions:
        if json_lines:
            on_text(json.dumps(each, ensure_ascii=False) + "\n")
        elif config.name:
            on_text(visible(f"{each['name']}: {each['about']}\n\n"))
            for declared in each["inputs"]:
                default = "required" if declared["required"] else f"default: {declared['default'] or 'empty'}"
                on_text(visible(f"  {declared['name']:12} {declared['about']} ({declared['type']}; {default})\n"))
        else:
            on_text(visible(f"{each['name']:14} {each['about']}\n"))
    return descriptions
