"""What lies where the Studio looks: runs with their stages, models, recipes.

Everything that a page names is found here, so that no path ever comes from a page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from groundup.core.artifact import ARTIFACT, REPLACED_INFIX, STARTED, working_directory
from groundup.core.config import read_toml
from groundup.core.console import format_count
from groundup.core.errors import DataError, GroundupError
from groundup.core.facts import Facts
from groundup.core.files import read_json
from groundup.core.locks import lock_owner
from groundup.hub.resolve import has_chat_template, is_classifier, is_language_model
from groundup.recipes import bundled
from groundup.report.record import stage_name

RECIPE = "recipe.toml"
LOG = "studio.log"  # of a run that was started from the page
State = Literal["done", "running", "stopped"]
_ANYWHERE = ("import", "report")  # stages that leave something where there is no run, too
_COUNTS = {"finetune.classify": "texts", "finetune.instruct": "trained tokens"}
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class StageSeen:
    """One stage of a run.

    Attributes:
        place: what pages call it: the run's name and the directory's.
        stage: its name in a recipe.
        figure: the one figure that tells of it.
        says: the same in a sentence.
        trains: whether it leaves losses, step by step.
        counts: what `tokens_seen` of its log counts, in the plural.
    """

    place: str
    directory: Path
    stage: str
    state: State
    figure: str
    says: str
    seconds: float
    finished_at: str
    trains: bool
    counts: str


@dataclass(frozen=True, slots=True)
class ModelSeen:
    """A model that can be opened.

    Attributes:
        step: of one that is still being trained, its newest checkpoint.
    """

    name: str
    directory: Path
    run: str | None
    kind: Literal["base", "tuned", "classifier"]
    chats: bool
    step: int | None = None


@dataclass(frozen=True, slots=True)
class RunSeen:
    """A run's directory, with its stages oldest first."""

    name: str
    directory: Path
    running: bool
    recipe: bool
    report: bool
    stages: tuple[StageSeen, ...]


class Home:
    """The directory that the Studio shows.

    Args:
        root: a directory of runs and models, one run, or one model.
        recipes: a directory of recipes that may be started.
    """

    def __init__(self, root: Path, recipes: Path) -> None:
        self.root = root.resolve()
        self._recipes = recipes
        self._model = self.root if _is_model(self.root) else None
        inside = self.root.parent if self._model else self.root
        runs_in_it = inside.is_dir() and any(_is_run(child) for child in _children(inside))
        self._run = inside if _is_run(inside) and not runs_in_it else None

    @property
    def runs_directory(self) -> Path:
        """Where new runs go."""
        inside = self._run or self._model
        return inside.parent if inside else self.root

    @property
    def chosen(self) -> str | None:
        """The model that the Studio was called with, if it was one."""
        return next((model.name for model in self.models() if model.directory == self._model), None)

    def runs(self) -> list[RunSeen]:
        """The runs, newest first."""
        found = [_run_seen(directory) for directory in self._run_directories()]
        return sorted(found, key=lambda run: run.directory.stat().st_mtime, reverse=True)

    def models(self) -> list[ModelSeen]:
        """All models: those of runs, then those that lie alone."""
        found = [model for run in self._run_directories() for model in _models_of(run)]
        alone = [self._model] if self._model and not self._run else []
        if not (self._run or self._model):
            alone = [child for child in _children(self.root) if _is_model(child)]
        return found + [_model_seen(directory, directory.name, None, "tuned") for directory in alone]

    def run(self, name: str) -> RunSeen:
        """The run that is called so. Raises DataError where there is none."""
        directory = next((each for each in self._run_directories() if each.name == name), None)
        if directory is None:
            raise _nothing(name, "run")
        return _run_seen(directory)

    def stage(self, place: str) -> StageSeen:
        """The stage that is called so. Raises DataError where there is none."""
        found = next((s for s in self.run(place.partition("/")[0]).stages if s.place == place), None)
        if found is None:
            raise _nothing(place, "stage of a run")
        return found

    def recipes(self) -> dict[str, Path]:
        """Return the recipes that can be started, by label: own files, bundled recipes, those of stopped runs."""
        files = sorted(self._recipes.glob("*.toml")) if self._recipes.is_dir() else []
        found = {path.name: path for path in files} | bundled()
        for run in self._run_directories():
            if (run / RECIPE).is_file():
                found[f"{run.name}/{RECIPE}"] = run / RECIPE
        return found

    def _run_directories(self) -> list[Path]:
        if self._run is not None:
            return [self._run]
        if self._model is not None:
            return []
        return [child for child in _children(self.root) if _is_run(child)]


def name_of(recipe: Path) -> str:
    """What a recipe calls its run; its file's name where it is no TOML."""
    try:
        name = read_toml(recipe).get("name")
    except GroundupError:
        name = None
    return name if isinstance(name, str) else recipe.stem


def _children(directory: Path) -> Iterator[Path]:
    for child in sorted(directory.iterdir()) if directory.is_dir() else ():
        if child.is_dir() and not child.name.startswith(".") and REPLACED_INFIX not in child.name:
            yield child


def _is_run(directory: Path) -> bool:
    if (directory / RECIPE).is_file() or (directory / LOG).is_file():  # the log is there before the recipe is
        return True
    seen = (_stage_seen(directory, child) for child in _children(directory))
    return any(stage is not None and stage.stage not in _ANYWHERE for stage in seen)


def _record(directory: Path) -> Path | None:
    """What a stage has left, or has begun with."""
    return next((path for path in (directory / ARTIFACT, directory / STARTED) if path.is_file()), None)


def _is_model(directory: Path) -> bool:
    try:
        return directory.is_dir() and (is_language_model(directory) or is_classifier(directory))
    except GroundupError:  # a damaged config.json: no model, and no reason to show nothing else
        return False


def _run_seen(directory: Path) -> RunSeen:
    stages = [seen for child in _children(directory) if (seen := _stage_seen(directory, child))]
    stages.sort(key=lambda stage: (stage.finished_at or "~", stage.place))
    return RunSeen(
        name=directory.name,
        directory=directory,
        running=lock_owner(directory) is not None or any(stage.state == "running" for stage in stages),
        recipe=(directory / RECIPE).is_file(),
        report=any(stage.state == "done" for stage in stages),
        stages=tuple(stages),
    )


def _stage_seen(run: Path, child: Path) -> StageSeen | None:
    directory = working_directory(child)  # while a stage runs again, what it writes now
    path = _record(directory)
    record = Facts(_read(path, path.stat().st_mtime_ns)) if path else Facts(None)
    if path is None or not record:
        return None
    done = path.name == ARTIFACT
    stage, facts = stage_name(record.words("stage")), record.part("facts")
    return StageSeen(
        place=f"{run.name}/{child.name}",
        directory=directory,
        stage=stage,
        state="done" if done else "running" if lock_owner(child) is not None else "stopped",
        figure=_figure(stage, facts) if done else "",
        says=_says(stage, facts) if done else "",
        seconds=record.number("seconds") or 0.0,
        finished_at=record.words("finished_at"),
        trains=(directory / "metrics.jsonl").is_file(),
        counts=_COUNTS.get(stage, "tokens"),
    )


@lru_cache(maxsize=512)
def _read(path: Path, changed: int) -> Any:
    """A record; nothing of one that is damaged or was taken away just now."""
    try:
        return read_json(path)
    except (GroundupError, OSError):
        return None


def _figure(stage: str, facts: Facts) -> str:
    if stage == "collect":
        size = sum(facts.count(split, "bytes") for split in ("train", "validation"))
        return f"{format_count(size, 'bytes')} of text"
    if stage == "tokenize":
        return f"vocabulary {facts.count('vocab_size'):,}"
    if stage == "evaluate" and (bpb := facts.number("bpb")) is not None:
        return f"{bpb:.3f} bits a byte"
    if (weights := facts.number("parameters")) is not None:
        return f"{format_count(weights)} weights"
    return ""


def _says(stage: str, facts: Facts) -> str:
    summary = facts.words("summary")
    seen = facts.number("tokens_seen")
    if not summary and seen is not None:
        return f"{facts.count('parameters'):,} weights, {round(seen):,} tokens seen"
    return summary


def _models_of(run: Path) -> Iterator[ModelSeen]:
    for child in _children(run):
        name, seen = f"{run.name}/{child.name}", _stage_seen(run, child)
        if _is_model(child):
            yield _model_seen(child, name, run.name, "base" if seen and seen.stage == "pretrain" else "tuned")
        elif seen and seen.stage == "pretrain" and (step := newest_step(child)) is not None:
            yield ModelSeen(name, child, run.name, "base", chats=False, step=step)


def _model_seen(directory: Path, name: str, run: str | None, kind: Literal["base", "tuned"]) -> ModelSeen:
    if is_classifier(directory):
        return ModelSeen(name, directory, run, "classifier", chats=False)
    chats = has_chat_template(directory)
    return ModelSeen(name, directory, run, kind if chats or run else "base", chats=chats)


def newest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint of a stage that trains; None where there is none yet."""
    saved = directory / "checkpoints"
    names = (path.name for path in saved.iterdir()) if saved.is_dir() else ()
    return max((int(match[1]) for name in names if (match := _STEP.fullmatch(name))), default=None)


def _nothing(name: str, kind: str) -> DataError:
    return DataError(f"{name[:80]}: not here", rule=f"what is asked for is a {kind} that is there", fix="Look again.")
