"""MkDocs hooks: generate the reference pages from the code, and show dark variants of pictures.

`reference_pages` and `reference_navigation` do not need MkDocs, so a test can compare them with the code.
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
HELP_WIDTH = 80  # characters
PICTURE = re.compile(r"!\[([^]]*)\]\(([^)\s]+)\.png\)")


def reference_pages() -> dict[str, str]:
    """Return the Markdown of each generated page, by path."""
    pages = {f"reference/{_filename(command)}.md": _command_page(command) for command in COMMANDS}
    pages["reference/applications.md"] = _applications_page()
    pages["reference/presets.md"] = _presets_page()
    pages["reference/python/commands.md"] = _commands_page()
    return pages | {f"reference/python/{name}.md": _package_page(name) for name in public_packages()}


def reference_navigation() -> list[Any]:
    """Return the navigation entries of the generated pages."""
    commands = [{f"groundup {command}": f"reference/{_filename(command)}.md"} for command in COMMANDS]
    python = [{f"groundup.{name}": f"reference/python/{name}.md"} for name in ("commands", *public_packages())]
    return [
        {"Command line": [*commands, {"Applications": "reference/applications.md"}]},
        {"Presets": "reference/presets.md"},
        {"Python API": python},
    ]


def public_packages() -> list[str]:
    """Return the packages and modules of groundup that declare `__all__`."""
    names = (module.name for module in pkgutil.iter_modules(groundup.__path__))
    return [name for name in names if hasattr(importlib.import_module(f"groundup.{name}"), "__all__")]


def _filename(command: str) -> str:
    return command.replace(" ", "-")


def _output(words: str) -> str:
    result = CliRunner().invoke(cli, words.split(), prog_name="groundup", terminal_width=HELP_WIDTH)
    assert result.exit_code == 0, result.output
    return f"```text\n{result.output.rstrip()}\n```\n"


def _command_page(command: str) -> str:
    stage = COMMANDS[command]
    page = f"# groundup {command}\n\n{_output(f'{command} --help')}"
    if stage.name not in STAGES:
        return page
    return f"""{page}
## Settings

All settings with their defaults, as printed by `groundup config {stage.name}`. Set them in the table
`[{stage.name}]` of a recipe, in a file for `--config`, or with `--set KEY=VALUE`.

```toml
{annotated_toml(stage.config, stage.name)}```
"""


def _applications_page() -> str:
    lead = "Each application is a declared file and a command. Your own directory can hold more (`--apps DIR`)."
    parts = [f"## {name}\n\n{_output(f'apps {name} --help')}" for name, _ in Catalog(None).items()]
    return "\n".join(["# Applications\n", f"{lead}\n", *parts])


def _presets_page() -> str:
    lead = (
        "Published architectures that `groundup pretrain --set shape.preset=NAME` trains from random weights.\n"
        "The parameter counts match the published ones. This is the output of `groundup model list`."
    )
    return f"# Presets\n\n{lead}\n\n{_output('model list')}"


def _commands_page() -> str:
    lead = "Each command is a module with a config and `run(config)`. The page of the command explains the settings."
    parts = [
        f"## {stage.module.__name__}\n\n::: {stage.module.__name__}\n    options:\n      heading_level: 3\n"
        f"      members: [{stage.config.__name__}, run]\n      show_attributes: false\n"
        for stage in STAGES.values()
    ]
    return "\n".join(["# groundup.commands\n", f"{lead}\n", *parts])


def _package_page(name: str) -> str:
    return f"# groundup.{name}\n\n::: groundup.{name}\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the section Reference of the navigation."""
    assert config.nav is not None
    (reference,) = (part["Reference"] for part in config.nav if "Reference" in part)
    reference.extend(reference_navigation())
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages and the icon of the Studio to the files of the site."""
    from mkdocs.structure.files import File

    for path, text in reference_pages().items():
        files.append(File.generated(config, path, content=text))
    icon = ROOT / "src" / "groundup" / "studio" / "static" / "icon.svg"
    files.append(File.generated(config, ICON, abs_src_path=str(icon)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the dark variant of a picture, NAME-dark.png, in the dark color scheme."""
    directory = Path(page.file.src_uri).parent

    def both(match: re.Match[str]) -> str:
        alt, name = match.groups()
        if files.get_file_from_path((directory / f"{name}-dark.png").as_posix()) is None:
            return match[0]
        return f"![{alt}]({name}.png#only-light)![{alt}]({name}-dark.png#only-dark)"

    return PICTURE.sub(both, markdown)
