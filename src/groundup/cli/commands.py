"""The commands. Each is built when it is asked for, so that `groundup --help` waits for no stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from groundup.cli import apps
from groundup.cli.options import common, declared, given
from groundup.cli.output import as_json, write
from groundup.commands import STAGES
from groundup.core.errors import ConfigError
from groundup.core.files import shell_quoted
from groundup.core.recipe import Stage

RUN = Stage("run", "run a whole recipe, stage by stage", "groundup run quickstart")
CONFIG = Stage("config", "print a stage's settings, explained, as TOML", "groundup config pretrain")
CACHE = Stage("cache", "show or clear the downloads that are kept", "groundup cache show")

COMMANDS = {stage.command: stage for stage in (RUN, *STAGES.values(), CONFIG, CACHE)}


class _Command(click.Command):
    """A command whose help ends with an example, on a line that can be copied."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"\nExample: {self.epilog}\n")


class CommandGroup(_Command, click.Group):
    """The commands whose words begin with `words`; each is built when it is asked for."""

    def __init__(self, *args: Any, words: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._words = words

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The next word of each command, once."""
        inside = (command.removeprefix(self._words) for command in COMMANDS if command.startswith(self._words))
        return list(dict.fromkeys(command.split()[0] for command in inside))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that word, or the group of those that go on after it."""
        command = self._words + cmd_name
        if command in COMMANDS:
            return _build(COMMANDS[command])
        inside = [stage for words, stage in COMMANDS.items() if words.startswith(f"{command} ")]
        about = ", or ".join(stage.about for stage in inside)
        about = f"{about[0].upper()}{about[1:]}."
        kind = _AppsGroup if command == "apps" else CommandGroup
        return kind(cmd_name, words=f"{command} ", help=about, epilog=inside[0].example)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown word with the nearest one."""
        if args[0] not in self.list_commands(ctx):
            from groundup.core.config import unknown_key

            raise unknown_key(f"{ctx.command_path} {args[0]}", args[0], self.list_commands(ctx), kind="command")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every command with all its words, from the table alone: no stage is imported for it."""
        inside = {c.removeprefix(self._words): stage for c, stage in COMMANDS.items() if c.startswith(self._words)}
        with formatter.section("Commands"):
            formatter.write_dl([(command, stage.about) for command, stage in inside.items()])


class _AppsGroup(CommandGroup):
    """Besides the commands of the table, one for each application."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the whole line: somewhere in it may stand where more applications are."""
        ctx.meta[_LINE] = list(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The table's, and the applications."""
        return [*super().list_commands(ctx), *apps.names(ctx.meta.get(_LINE, ()))]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse the name of a file that declares no application with what is wrong in it."""
        apps.require_valid_app(args[0], ctx.meta.get(_LINE, ()))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command of the table, or that of an application."""
        if self._words + cmd_name in COMMANDS:
            return super().get_command(ctx, cmd_name)
        parameters, stage = apps.parameters(cmd_name, ctx.meta.get(_LINE, ()))
        return _stage(stage, parameters, lambda flags: apps.taken(cmd_name, flags))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's, and the applications."""
        super().format_commands(ctx, formatter)
        with formatter.section("Applications"):
            formatter.write_dl(list(apps.names(ctx.meta.get(_LINE, ())).items()))


_LINE = "groundup.apps.line"


def _build(stage: Stage) -> click.Command:
    builders = {RUN.name: _run, CONFIG.name: _config, CACHE.name: _cache}
    return builders[stage.name]() if stage.name in builders else _stage(stage)


def _command(stage: Stage, parameters: Sequence[click.Parameter], callback: Callable[..., None]) -> click.Command:
    about = f"{stage.about[0].upper()}{stage.about[1:]}."
    name = stage.command.split()[-1]
    return _Command(name, params=list(parameters), callback=callback, help=about, epilog=stage.example)


def _stage(
    stage: Stage,
    parameters: list[click.Parameter] | None = None,
    taken: Callable[[dict[str, Any]], dict[str, Any]] = given,
) -> click.Command:
    """A stage leaves a directory (`out`), returns one text, or streams its result for as long as it is used.

    Args:
        parameters: in place of those that its config declares;
        taken: makes the config's keys of their values.
    """
    parameters = declared(stage.config) if parameters is None else parameters
    leaves_files = not (stage.returns_text or stage.streams)
    if not any(isinstance(parameter, click.Argument) for parameter in parameters):
        # A stage that reads no earlier output takes its settings where others take their input.
        parameters.insert(0, click.Argument(["recipe"], metavar="RECIPE.toml", required=False))

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
        flags_given = given(taken(flags))
        table = _table(Path(file), stage, model=flags_given.get("model")) if file else {}
        values = apply_overrides(table, overrides) | flags_given
        where = f"[{stage.name}] in {file}" if file else f"groundup {stage.command}"
        config: Any = load(stage.config, values, where)
        run, console = stage.module.run, Console(quiet=quiet)
        if leaves_files:
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

    shared = common("config", "set", *([] if leaves_files else ["output"]), "quiet", "json")
    return _command(stage, [*parameters, *shared], callback)


def _table(path: Path, stage: Stage, *, model: str | None = None) -> dict[str, Any]:
    """A stage's settings: its table of a recipe, or a file of bare keys.

    Args:
        model: the model that the command line names.
    """
    from groundup.core.config import read_toml
    from groundup.recipes.rates import require_absolute_rates, stage_table

    def model_of(stage: str, table: Mapping[str, Any]) -> Path | None:
        named = model or table.get("model")
        return Path(str(named)) if named else None

    name = stage.name
    try:
        values = read_toml(path)
    except ConfigError as error:
        options = _input_options(stage)
        if path.suffix == ".toml" or not path.exists() or not options:
            raise
        fix = f"To read it as text: groundup {stage.command} {options[0]} {shell_quoted(path)}"
        raise ConfigError(error.value, rule=error.rule, fix=fix) from None
    require_absolute_rates(values, path.name, model_of, name)
    if (table := stage_table(values, name)) is not None:
        return table
    if any(stage_table(values, other) is not None for other in STAGES):
        rule = f"a recipe for this stage has a table [{name}]"
        raise ConfigError(f"{path}: no table [{name}]", rule=rule, fix=f"Add it: groundup config {name} shows one.")
    return values


def _input_options(stage: Stage) -> list[str]:
    """The options that name a stage's input, where the recipe takes the place of arguments that do."""
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

    listing = click.Option(["--list", "list_wanted"], is_flag=True, help="list the bundled recipes and exit")
    command = _command(RUN, [*declared(RunConfig), listing, *common("set", "quiet", "json")], callback)
    command.help = f"{command.help} RECIPE is a TOML file or a bundled recipe: {', '.join(bundled())}."
    return command


def _list_recipes(json_wanted: bool) -> None:
    from groundup.recipes import DIRECTORY, bundled, description_of

    recipes = {name: description_of(path) for name, path in bundled().items()}
    if json_wanted:
        write(as_json({"directory": DIRECTORY, "recipes": recipes}))
        return
    width = max(map(len, recipes))
    lines = [f"{name:{width}}  {about}" for name, about in recipes.items()]
    write("\n".join([*lines, f"\nTo change one, copy it from {DIRECTORY}.\n"]))


def _config() -> click.Command:
    def callback(*, words: tuple[str, ...], output: str | None) -> None:
        from groundup.core.config import RECIPE_VERSION, VERSION, annotated_toml, unknown_key

        stage = ".".join(word for each in words for word in each.split())  # "finetune instruct", as the command is
        if stage not in STAGES:
            raise unknown_key(f"groundup config {' '.join(words)}", stage, list(STAGES), kind="stage")
        write(f"{VERSION} = {RECIPE_VERSION}\n\n{annotated_toml(STAGES[stage].config, stage)}", output)

    argument = click.Argument(["words"], metavar="STAGE", nargs=-1, required=True)
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

    action = click.Argument(["action"], metavar="show|clear", type=click.Choice(["show", "clear"]))
    return _command(CACHE, [action, *common("json")], callback)


def _bytes_in(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
