"""What MkDocs adds to the pages that lie here: the reference, made of the code, and pictures on dark paper.

`reference_pages` and `reference_navigation` need no MkDocs, so that a test can hold them to the code.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

import groundup
from groundup.apps import Catalog
from groundup.cli import cli
from groundup.cli.commands import COMMANDS
from groundup.commands import STAGES
from groundup.core.config import annotated_toml

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ICON = "assets/icon.svg"
WIDTH = 80  # characters of a help text
PICTURE = re.compile(r"!\[([^]]*)\]\(([^)\s]+)\.png\)")


def reference_pages() -> dict[str, str]:
    """Path -> Markdown of each page of the reference."""
    pages = {f"reference/{_file(command)}.md": _command_page(command) for command in COMMANDS}
    pages["reference/applications.md"] = _applications_page()
    pages["reference/python/commands.md"] = _stages_page()
    return pages | {f"reference/python/{room}.md": _room_page(room) for room in rooms()}


def reference_navigation() -> list[Any]:
    """The part of the navigation that leads to them."""
    commands = [{f"groundup {command}": f"reference/{_file(command)}.md"} for command in COMMANDS]
    python = [{f"groundup.{room}": f"reference/python/{room}.md"} for room in ("commands", *rooms())]
    return [{"Command line": [*commands, {"Applications": "reference/applications.md"}]}, {"Python": python}]


def rooms() -> list[str]:
    """The packages, and the modules beside them, that say with `__all__` what is meant for others."""
    names = (module.name for module in pkgutil.iter_modules(groundup.__path__))
    return [name for name in names if hasattr(importlib.import_module(f"groundup.{name}"), "__all__")]


def _file(command: str) -> str:
    return command.replace(" ", "-")


def _help(words: str) -> str:
    result = CliRunner().invoke(cli, [*words.split(), "--help"], prog_name="groundup", terminal_width=WIDTH)
    assert result.exit_code == 0, result.output
    return f"```text\n{result.output.rstrip()}\n```\n"


def _command_page(command: str) -> str:
    stage = COMMANDS[command]
    page = f"# groundup {command}\n\n{_help(command)}"
    if stage.name not in STAGES:
        return page
    return f"""{page}
## Settings

Every key with its default, as `groundup config {stage.name}` prints them. They stand in a recipe's table
`[{stage.name}]`, in a file that is given with `--config`, or are set for once with `--set KEY=VALUE`.

```toml
{annotated_toml(stage.config, stage.name)}```
"""


def _applications_page() -> str:
    found = Catalog(None).items()
    parts = [f"## {name}\n\n{_help(f'apps {name}')}" for name, _ in found]
    lead = "Each is a declared file, and a command of its own; a folder of yours may hold more (`--apps`)."
    return "\n".join(["# Applications\n", f"{lead}\n", *parts])


def _stages_page() -> str:
    lead = (
        "A stage is a module with a config and `run(config)`. What the keys of a config are is told with its command."
    )
    parts = [
        f"## {stage.module.__name__}\n\n::: {stage.module.__name__}\n    options:\n      heading_level: 3\n"
        f"      members: [{stage.config.__name__}, run]\n      show_attributes: false\n"
        for stage in STAGES.values()
    ]
    return "\n".join(["# groundup.commands\n", f"{lead}\n", *parts])


def _room_page(room: str) -> str:
    return f"# groundup.{room}\n\n::: groundup.{room}\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The reference comes after all that is written by hand."""
    assert config.nav is not None
    config.nav.append({"Reference": reference_navigation()})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The reference, and the Studio's icon."""
    from mkdocs.structure.files import File

    for path, text in reference_pages().items():
        files.append(File.generated(config, path, content=text))
    icon = ROOT / "src" / "groundup" / "studio" / "static" / "icon.svg"
    files.append(File.generated(config, ICON, abs_src_path=str(icon)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A picture that was also taken on dark paper is shown so on dark paper."""
    folder = Path(page.file.src_uri).parent

    def both(match: re.Match[str]) -> str:
        alt, name = match.groups()
        if files.get_file_from_path((folder / f"{name}-dark.png").as_posix()) is None:
            return match[0]
        return f"![{alt}]({name}.png#only-light)![{alt}]({name}-dark.png#only-dark)"

    return PICTURE.sub(both, markdown)
