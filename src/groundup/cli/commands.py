"""Definition of the commands. A command is built when it is used, so `groundup --help` does not import any stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from groundup.cli import apps
from groundup.cli.options import Argument, common, declared, given
from groundup.cli.output import as_json, write
from groundup.commands import STAGES
from groundup.core.errors import ConfigError
from groundup.core.files import shell_quoted
from groundup.core.recipe import Stage

RUN = Stage("run", "Run a recipe, stage by stage", "groundup run quickstart")
CONFIG = Stage("config", "Print the settings of a stage as annotated TOML", "groundup config pretrain")
CACHE = Stage("cache", "Show or clear the download cache", "groundup cache show")

COMMANDS = {stage.command: stage for stage in (RUN, *STAGES.values(), CONFIG, CACHE)}


class _Command(click.Command):
    """A command whose help describes the positional arguments and ends with an example."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the positional arguments, then the options."""
        arguments = [parameter for parameter in self.params if isinstance(parameter, Argument)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(each.make_metavar(ctx), each.meaning) for each in arguments])
        super().format_options(ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example on a line of its own, so that users can copy it."""
        formatter.write(f"\nExample: {self.epilog}\n")


class _StageCommand(_Command):
    """A command whose options are the settings of a stage.

    Args:
        *args: Positional arguments of `click.Command`.
        stage: Stage that the command runs.
        **kwargs: Keyword arguments of `click.Command`.
    """

    def __init__(self, *args: Any, stage: Stage, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stage = stage

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise self._unknown_option(error.option_name, ctx) from None

    def _unknown_option(self, option: str, ctx: click.Context) -> ConfigError:
        from groundup.core.config import settings_of, unknown_name

        settings = {item.name for item in settings_of(self._stage.config)}
        name = option.lstrip("-").replace("-", "_")
        if any(isinstance(each, Argument) and each.name in (name, f"{name}s") for each in self.params):
            usage = " ".join([ctx.command_path, *self.collect_usage_pieces(ctx)])
            return ConfigError(f"unknown option '{option}'", fix=f"Give it without a flag: {usage}")
        if name in settings:
            return ConfigError(f"unknown option '{option}'", fix=f"Write --set {name}=VALUE.")
        known = [flag for parameter in self.params for flag in parameter.opts if flag.startswith("--")]
        error = unknown_name("option", option, known)
        return ConfigError(error.value, fix=error.fix and f"See: groundup {self._stage.command} --help")


class CommandGroup(_Command, click.Group):
    """A group of commands that start with the same words. Each command is built when it is used.

    Args:
        *args: Positional arguments of `click.Group`.
        words: The shared words, followed by a space. The root group has the empty string.
        **kwargs: Keyword arguments of `click.Group`.
    """

    def __init__(self, *args: Any, words: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._words = words

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        inside = (command.removeprefix(self._words) for command in COMMANDS if command.startswith(self._words))
        return list(dict.fromkeys(command.split()[0] for command in inside))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build a command or a nested group."""
        command = self._words + cmd_name
        if command in COMMANDS:
            return _build(COMMANDS[command])
        inside = [stage for words, stage in COMMANDS.items() if words.startswith(f"{command} ")]
        about = " ".join(f"{stage.about}." for stage in inside)
        kind = _AppsGroup if command == "apps" else CommandGroup
        return kind(cmd_name, words=f"{command} ", help=about, epilog=inside[0].example)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments refer to."""
        if args[0] not in self.list_commands(ctx):
            from groundup.core.config import unknown_name

            prefix = f"{ctx.command_path} ".removeprefix("groundup ")
            raise unknown_name("command", args[0], self.list_commands(ctx), prefix=prefix)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names of the commands with their summaries."""
        inside = {c.removeprefix(self._words): stage for c, stage in COMMANDS.items() if c.startswith(self._words)}
        with formatter.section("Commands"):
            formatter.write_dl([(command, stage.about) for command, stage in inside.items()])


class _AppsGroup(CommandGroup):
    """The group `groundup apps`, with the commands `list`, `run`, `evaluate` and one command for each application."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        # The command line may contain --apps, which adds commands.
        ctx.meta[_LINE] = list(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return [*super().list_commands(ctx), *apps.descriptions(ctx.meta.get(_LINE, ()))]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments refer to."""
        apps.require_valid_app(args[0], ctx.meta.get(_LINE, ()))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build a command or a nested group."""
        if self._words + cmd_name in COMMANDS:
            return super().get_command(ctx, cmd_name)
        parameters, stage = apps.parameters(cmd_name, ctx.meta.get(_LINE, ()))
        return _stage(stage, parameters, lambda flags: apps.run_flags(cmd_name, flags))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names of the commands with their summaries."""
        super().format_commands(ctx, formatter)
        with formatter.section("Applications"):
            formatter.write_dl(list(apps.descriptions(ctx.meta.get(_LINE, ())).items()))


_LINE = "groundup.apps.line"


def _build(stage: Stage) -> click.Command:
    builders = {RUN.name: _run, CONFIG.name: _config, CACHE.name: _cache}
    return builders[stage.name]() if stage.name in builders else _stage(stage)


def _command(
    stage: Stage, parameters: Sequence[click.Parameter], callback: Callable[..., None], *, kind: Any = _Command
) -> click.Command:
    about = f"{stage.about[:1].upper()}{stage.about[1:]}."
    name = stage.command.split()[-1]
    command: click.Command = kind(name, params=list(parameters), callback=callback, help=about, epilog=stage.example)
    return command


def _stage(
    stage: Stage,
    parameters: list[click.Parameter] | None = None,
    to_settings: Callable[[dict[str, Any]], dict[str, Any]] = given,
) -> click.Command:
    """Return the command of a stage. The stage writes a directory (`out`), returns one text, or streams its result.

    Args:
        stage: Stage that the command runs.
        parameters: Parameters of the command. Default: parameters derived from the config of the stage.
        to_settings: Function that converts the values of the parameters to settings.
    """
    parameters = declared(stage.config) if parameters is None else parameters
    writes_files = not (stage.returns_text or stage.streams)
    if not any(isinstance(parameter, click.Argument) for parameter in parameters):
        # A stage without an input directory accepts a recipe as its positional argument.
        about = f"Recipe with a table [{stage.name}]; the same as --config"
        parameters.insert(0, Argument("recipe", "RECIPE.toml", about, needed=False))

    def callback(
        *,
        quiet: bool,
        json_wanted: bool,
        overrides: tuple[str, ...],
        config_file: str | None,
        output: str | None = None,
        recipe: str | None = None,
        **flags: Any,
    ) -> None:
        from groundup.core.config import apply_overrides, load
        from groundup.core.console import Console
        from groundup.distributed.ranks import require_one_process

        if not stage.distributed:
            require_one_process(stage.command)
        file = recipe or config_file
        table = _table(Path(file), stage) if file else {}
        values = apply_overrides(table, overrides) | given(to_settings(flags))
        where = f"[{stage.name}] in {file}" if file else f"[{stage.name}]"
        config: Any = load(stage.config, values, where)
        run, console = stage.module.run, Console(quiet=quiet)
        if writes_files:
            made = run(config, console=console)
            if json_wanted:
                write(as_json({"directory": config.out, **asdict(made)}))
        elif stage.streams:
            parts: list[str] = []
            run(config, console=console, on_text=parts.append if output else write, json_lines=json_wanted)
            if output:
                write("".join(parts), output)
        elif json_wanted or output:
            made = run(config, console=console)
            write(as_json(made) if json_wanted else f"{made.text}\n", output)
        else:
            run(config, console=console, on_text=write)
            write("\n")

    shared = common("config", "set", *([] if writes_files else ["output"]), "quiet", "json")
    return _command(stage, [*parameters, *shared], callback, kind=partial(_StageCommand, stage=stage))


def _table(path: Path, stage: Stage) -> dict[str, Any]:
    """Return the settings of a stage from a file, which is a recipe or contains the keys without a table.

    Args:
        path: File to read.
        stage: Stage whose settings are returned.
    """
    from groundup.core.config import read_toml, without_version
    from groundup.core.recipe import stage_table

    name = stage.name
    try:
        values = read_toml(path)
    except ConfigError as error:
        options = _input_options(stage)
        if path.suffix == ".toml" or not path.exists() or not options:
            raise
        fix = f"To read it as text: groundup {stage.command} {options[0]} {shell_quoted(path)}"
        raise ConfigError(error.value, rule=error.rule, fix=fix) from None
    values = without_version(values, path.name)
    if (table := stage_table(values, name)) is not None:
        return table
    if any(stage_table(values, other) is not None for other in STAGES):
        raise ConfigError(f"{path}: no table [{name}]", fix=f"Add the table that groundup config {name} prints.")
    return values


def _input_options(stage: Stage) -> list[str]:
    """Return the input options of a stage whose positional argument is a recipe."""
    from groundup.core.config import settings_of

    settings = list(settings_of(stage.config))
    if any(item.positional for item in settings):
        return []
    return [item.option for item in settings if item.flag and item.type is Path and item.name != "out"]


def _run() -> click.Command:
    from groundup.commands.run import RunConfig, run
    from groundup.recipes import bundled

    def callback(
        *, list_wanted: bool, quiet: bool, json_wanted: bool, overrides: tuple[str, ...], **flags: Any
    ) -> None:
        from groundup.core.config import load
        from groundup.core.console import Console
        from groundup.distributed.ranks import require_one_process

        if list_wanted:
            _list_recipes(json_wanted)
            return
        require_one_process("run")
        config = load(RunConfig, {**given(flags), "overrides": overrides}, "groundup run")
        made = run(config, console=Console(quiet=quiet))
        if json_wanted:
            write(as_json(made))

    listing = click.Option(["--list", "list_wanted"], is_flag=True, help="List the bundled recipes and exit")
    command = _command(RUN, [*declared(RunConfig), listing, *common("set", "quiet", "json")], callback)
    command.help = f"{command.help} Bundled recipes: {', '.join(bundled())}."
    return command


def _list_recipes(json_wanted: bool) -> None:
    from groundup.recipes import DIRECTORY, bundled, description_of

    recipes = {name: description_of(path) for name, path in bundled().items()}
    if json_wanted:
        write(as_json({"directory": DIRECTORY, "recipes": recipes}))
        return
    width = max(map(len, recipes))
    lines = [f"{name:{width}}  {about}" for name, about in recipes.items()]
    write("\n".join([*lines, f"\nTo change a recipe, copy it from {DIRECTORY}.\n"]))


def _config() -> click.Command:
    def callback(*, words: tuple[str, ...], output: str | None) -> None:
        from groundup.core.config import RECIPE_VERSION, VERSION, annotated_toml, unknown_name

        # The argument may be "finetune.instruct" or "finetune instruct".
        stage = ".".join(word for each in words for word in each.split())
        if stage not in STAGES:
            raise unknown_name("stage", stage, list(STAGES))
        write(f"{VERSION} = {RECIPE_VERSION}\n\n{annotated_toml(STAGES[stage].config, stage)}", output)

    argument = Argument("words", "STAGE", "Stage, such as pretrain or finetune.classify", many=True)
    argument.required = True
    return _command(CONFIG, [argument, *common("output")], callback)


def _cache() -> click.Command:
    def callback(*, action: str, json_wanted: bool) -> None:
        from groundup.core.console import format_count
        from groundup.core.files import cache_dir

        directory = cache_dir()
        entries = sorted(directory.iterdir()) if directory.is_dir() else []
        sizes = {entry.name: _bytes_in(entry) for entry in entries}
        if action == "clear":
            for entry in entries:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if json_wanted:
            write(as_json({"action": action, "directory": directory, "bytes": sizes}))
            return
        total = format_count(sum(sizes.values()), "bytes")
        lines = [f"{format_count(size, 'bytes'):>10}  {name}" for name, size in sizes.items()]
        lines.append(f"{directory}: {total}" + (" freed" if action == "clear" else ""))
        write("\n".join(lines) + "\n")

    choices = click.Choice(["show", "clear"])
    argument = Argument("action", "show|clear", "List the cached files with their sizes, or delete them", type=choices)
    argument.required = True
    return _command(CACHE, [argument, *common("json")], callback)


def _bytes_in(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
