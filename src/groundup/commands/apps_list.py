"""`groundup apps list`: the applications that there are."""

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
    """Where to look."""

    name: str = setting("", help="show this one with its inputs", positional=True)
    apps: Path | None = setting(None, help="folder with applications of your own; default: ./apps", flag=True)


def run(
    config: AppsListConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] = print_now,
    json_lines: bool = False,
) -> list[dict[str, Any]]:
    """Each application's declaration; `on_text` receives them for people, or as one JSON object a line.

    Raises:
        ConfigError: none of that name, or a wrong declaration.
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
                needed = "needed" if declared["required"] else f"default: {declared['default'] or 'nothing'}"
                on_text(visible(f"  {declared['name']:12} {declared['about']} ({declared['type']}; {needed})\n"))
        else:
            on_text(visible(f"{each['name']:14} {each['about']}\n"))
    return descriptions
