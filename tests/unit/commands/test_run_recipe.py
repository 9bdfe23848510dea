"""`groundup run` runs stages in order, connects inputs and outputs, skips finished stages and resumes others."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import STAGES
from groundup.commands.run import Run, RunConfig, run
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, ResourceError
from groundup.core.recipe import Stage, recipe_steps

# These stages have the same structure as the stages of groundup: a config, and a `run` that begins, works and finishes.
STAGE = """
from pathlib import Path
from groundup.core import artifact
from groundup.core.config import Config, setting
from groundup.core.errors import DataError

class {title}Config(Config):
    out: Path = setting(help="output directory")
    {extra}

def run(config, *, console=None):
    inputs = {inputs}
    work = artifact.begin(config.out, "{name}", {{"words": {words}}}, inputs)
    if work.state == "done":
        return artifact.read(config.out)
    console.note("{name} is {{}}".format(work.state))
    text = {text}
    if not text:
        raise DataError("no text", rule="text is needed", fix="Give text.")
    (work.directory / "text.txt").write_text(text)
    return work.finish({{"characters": len(text)}}, [work.directory / "text.txt"])
"""
GATHER = STAGE.format(
    title="Gather",
    name="gather",
    extra='text: str = setting(help="the text")\n    repeat: int = setting(1, help="how often", ge=0)',
    inputs="{}",
    words="[config.text, config.repeat]",
    text="config.text * config.repeat",
)
SHOUT = STAGE.format(
    title="Shout",
    name="shout",
    extra='source: Path = setting(help="its directory")\n    mark: str = setting("!", help="put behind it")',
    inputs='{"source": artifact.read(config.source).digest}',
    words="config.mark",
    text='(config.source / "text.txt").read_text().upper() + config.mark',
)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    package = tmp_path / "modules" / f"stages_{tmp_path.name.replace('-', '_')}"
    package.mkdir(parents=True)
    for name, code in (("__init__", ""), ("gather", GATHER), ("shout", SHOUT)):
        (package / f"{name}.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.chdir(tmp_path)
    gather = Stage("gather", "gather text", "", directory="words", package=package.name)
    shout = Stage(
        "shout",
        "make it loud",
        "",
        directory="loud",
        inputs={"source": "gather"},
        then=("cat {run}/loud/text.txt",),
        package=package.name,
    )
    other = Stage("other", "no part of a recipe", "", package=package.name)
    return {"gather": gather, "shout": shout, "other": other}


class Runner:
    """Runs recipes and records the messages on the console."""

    def __init__(self, stages: dict[str, Stage]) -> None:
        self.stages, self.said = stages, ""

    def __call__(self, recipe: str, *overrides: str, file: str = "small.toml") -> Run:
        Path(file).write_text(recipe)
        stream = io.StringIO()
        try:
            config = RunConfig(recipe=Path(file), overrides=overrides)
            return run(config, console=Console(stream=stream), stages=self.stages)
        finally:
            self.said = stream.getvalue()


@pytest.fixture
def runner(stages: dict[str, Stage]) -> Runner:
    return Runner(stages)


# The tables are not in the order of the pipeline. The order of the pipeline must be used.
RECIPE = '[shout]\nmark = "?"\n[gather]\ntext = "quiet "\nrepeat = 2\n'


def test_stages_run_in_order_on_earlier_outputs(runner: Runner) -> None:
    made = runner(RECIPE)
    assert made.directory == Path("runs/small")  # the run is named after the recipe file
    assert Path("runs/small/loud/text.txt").read_text() == "QUIET QUIET ?"
    assert list(made.artifacts) == ["gather", "shout"]
    assert "[1/2] gather" in runner.said
    assert "cat runs/small/loud/text.txt" in runner.said  # suggested commands contain the actual path


def test_second_run_skips_and_a_change_reruns_dependent_stages(runner: Runner) -> None:
    runner(RECIPE)
    runner(RECIPE)
    assert runner.said.count("done earlier") == 2
    assert "is fresh" not in runner.said
    runner(RECIPE, "shout.mark=...")
    assert runner.said.count("done earlier") == 1
    assert Path("runs/small/loud/text.txt").read_text() == "QUIET QUIET ..."


def test_a_change_in_an_early_stage_reaches_the_last(runner: Runner) -> None:
    runner(RECIPE)
    runner(RECIPE, "gather.repeat=1")
    assert "done earlier" not in runner.said
    assert Path("runs/small/loud/text.txt").read_text() == "QUIET ?"


def test_saved_recipe_is_the_same_work(runner: Runner) -> None:
    runner(RECIPE, "name=elsewhere")
    kept = Path("runs/elsewhere/recipe.toml").read_text()
    assert tomllib.loads(kept) == {
        "version": 2,
        "name": "elsewhere",
        "gather": {"text": "quiet ", "repeat": 2},
        "shout": {"mark": "?"},
    }
    runner(kept, file="kept.toml")
    assert runner.said.count("done earlier") == 2


def test_later_stages_run_alone_on_existing_outputs(runner: Runner) -> None:
    runner(RECIPE)
    runner('[shout]\nmark = "."\n')
    assert Path("runs/small/loud/text.txt").read_text() == "QUIET QUIET ."


def test_paths_of_the_recipe_take_precedence(runner: Runner) -> None:
    runner(RECIPE, "gather.out=mine/words")
    assert Path("mine/words/text.txt").read_text() == "quiet quiet "
    assert Path("runs/small/loud/text.txt").read_text() == "QUIET QUIET ?"
    assert tomllib.loads(Path("runs/small/recipe.toml").read_text())["gather"]["out"] == str(Path("mine/words"))


@pytest.mark.parametrize(
    ("recipe", "overrides", "value", "fix"),
    [
        (RECIPE, ["gahter.text=x"], "unknown table 'gahter' in small.toml; did you mean 'gather'?", ""),
        (RECIPE, ["other.x=1"], "other", ""),  # other is a stage that recipes cannot contain
        (RECIPE, ["shout.marc=x"], "unknown setting 'marc' in [shout] in small.toml; did you mean 'mark'?", ""),
        (RECIPE, ["shout=3"], "shout = 3", "[shout]"),
        (RECIPE, ["name=../up"], "../up", "my-run"),
        (RECIPE, ["name=.hidden"], ".hidden", "my-run"),
        ("", [], "no stages", "[gather]"),
    ],
)
def test_errors_are_found_before_anything_is_written(
    runner: Runner, recipe: str, overrides: list[str], value: str, fix: str
) -> None:
    """A typo in the last table must be reported immediately, and not after an hour of earlier stages."""
    with pytest.raises(ConfigError) as caught:
        runner(recipe, *overrides)
    assert value in caught.value.value
    assert fix in caught.value.fix
    assert not Path("runs").exists()


def test_failed_stage_ends_the_run_and_the_next_run_resumes(runner: Runner) -> None:
    with pytest.raises(DataError):
        runner(RECIPE, "gather.repeat=0")
    assert not Path("runs/small/loud").exists()
    with pytest.raises(DataError):
        runner(RECIPE, "gather.repeat=0")
    assert "gather is resumed" in runner.said
    runner(RECIPE)
    assert Path("runs/small/loud/text.txt").read_text() == "QUIET QUIET ?"


HOLD = """
import sys, time
from pathlib import Path
from groundup.core.locks import locked_run
with locked_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_runs_do_not_share_a_directory_and_a_killed_one_leaves_no_lock(runner: Runner) -> None:
    """Two runs in the same directory would overwrite each other's checkpoints."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, "runs/small"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ResourceError, match=str(holder.pid)):
            runner(RECIPE)
    finally:
        holder.kill()  # sends SIGKILL on POSIX
        holder.communicate()
    runner(RECIPE)
    assert Path("runs/small/loud/text.txt").exists()


def test_an_input_comes_from_the_stage_in_the_recipe(stages: dict[str, Stage], tmp_path: Path) -> None:
    """Fine-tuning starts from a pretrained model or from an imported model."""
    either = replace(stages["shout"], inputs={"source": ("fetch", "gather")})
    fetch = replace(stages["gather"], directory="fetched")
    known = {"fetch": fetch, "gather": stages["gather"], "shout": either}

    def source(recipe: dict[str, Any]) -> Path:
        return recipe_steps(recipe, tmp_path / "run", "r.toml", known)[-1].config.source  # type: ignore[attr-defined]

    assert source({"gather": {"text": "x"}, "shout": {}}) == tmp_path / "run" / "words"
    (tmp_path / "run" / "fetched").mkdir(parents=True)
    assert source({"gather": {"text": "x"}, "shout": {}}) == tmp_path / "run" / "words", (
        "a stage of the recipe must take precedence over an existing output"
    )
    assert source({"shout": {}}) == tmp_path / "run" / "fetched"


def test_a_shared_setting_is_in_the_recipe_once(tmp_path: Path) -> None:
    """If each stage had its own copy, a changed test table could leave a comparison on training examples."""
    recipe = {
        "import": {"path": "somewhere"},
        "finetune": {"instruct": {"data": "learn.csv", "test": "test.csv"}},
        "compare": {},
    }
    steps = {step.stage.name: step.config for step in recipe_steps(recipe, tmp_path, "r.toml", STAGES)}
    compared: Any = steps["compare"]
    assert [str(source.path) for source in compared.data] == ["test.csv"]
    assert [str(source.path) for source in compared.train] == ["learn.csv"]
    assert (compared.base, compared.fine_tuned) == (tmp_path / "model", tmp_path / "chat")
    assert steps["finetune.instruct"].model == tmp_path / "model"  # type: ignore[attr-defined]
    del recipe["finetune"]["instruct"]["test"]  # type: ignore[attr-defined]
    alone: Any = recipe_steps(recipe, tmp_path, "r.toml", STAGES)[-1].config
    assert [str(source.path) for source in alone.data] == ["learn.csv"]
    other: Any = recipe_steps(recipe | {"compare": {"data": "mine.csv"}}, tmp_path, "r.toml", STAGES)[-1].config
    assert [str(source.path) for source in other.data] == ["mine.csv"]
