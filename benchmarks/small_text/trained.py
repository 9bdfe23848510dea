"""Runs of `groundup pretrain` with a time or token budget, whose results are cached, and the old planner's code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.pretrain.command import pretrain
from benchmarks.pretrain.processes import ROOT, ContenderError, ProcessRunner
from benchmarks.pretrain.result_cache import cached
from groundup.core.artifact import ARTIFACT
from groundup.core.files import read_json, write_json

OLD_COMMIT = "efa2116"  # the last commit whose planner stops after 4 epochs
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A training run.

    Attributes:
        tokens: Directory of token shards.
        arguments: Arguments of `groundup pretrain`, such as the budget.
        seed: Random seed.
        old: Whether the old planner trains.
    """

    tokens: Path
    arguments: tuple[str, ...]
    seed: int = 0
    old: bool = False

    @property
    def name(self) -> str:
        """Name of the run in logs and caches."""
        settings = "_".join(part.removeprefix("--") for part in self.arguments)
        return f"{self.tokens.name}-{settings}-{self.seed}{'-old' * self.old}".replace("=", "_")


@dataclass(frozen=True, slots=True)
class Runs:
    """Trains and scores models with the current and the old planner.

    Attributes:
        runner: The process runner of the current code.
        old: Checkout of the old code, or None.
        log: A function that prints a line.
    """

    runner: ProcessRunner
    old: Path | None
    log: Log

    def together(self, runs: Sequence[Run]) -> list[dict[str, Any]]:
        """Run trainings, and return the result of each run.

        With `--threads 1`, as many runs as there are cores train at the same time, each pinned to one core. Otherwise
        they train one after another.
        """
        cores = sorted(os.sched_getaffinity(0)) if self.runner.threads == 1 and hasattr(os, "sched_getaffinity") else []
        if len(cores) < 2:
            return [self.result(run) for run in runs]
        free = list(cores)

        def pinned(run: Run) -> dict[str, Any]:
            cpu = free.pop()
            try:
                return replace(self, runner=replace(self.runner, cpu=cpu)).result(run)
            finally:
                free.append(cpu)

        with ThreadPoolExecutor(len(cores)) as pool:
            return list(pool.map(pinned, runs))

    def result(self, run: Run) -> dict[str, Any]:
        """Return the result of a run, which is trained unless it is cached."""
        settings = {"arguments": list(run.arguments), "seed": run.seed, "pinned": self.runner.cpu is not None}
        code = _commit(self.old) if run.old and self.old else None
        found = cached(self.runner, run.name, settings, run.tokens, partial(self._train, run), code=code)
        self.log(
            f"{run.name}: {found['score']['bpb']:.4f} bits per byte, {found['parameters']:,} parameters, "
            f"{found['epochs']:.1f} epochs, {found['seconds']:.0f} s"
        )
        return found

    def stored_plan(self, tokens: Path, arguments: Sequence[str]) -> dict[str, Any]:
        """Return the estimate of `groundup plan` for token shards, which is cached."""
        name = f"plan-{tokens.name}-{'_'.join(arguments)}"
        return cached(self.runner, name, {"arguments": list(arguments)}, tokens, partial(self._plan, tokens, arguments))

    def _plan(self, tokens: Path, arguments: Sequence[str]) -> dict[str, Any]:
        command = [*self.runner.python, "-m", "groundup", "plan", str(tokens), *arguments, "--json"]
        environment = self.runner.environment("unused") | {
            "XDG_CACHE_HOME": str(self.runner.directory / "cache" / "new")
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ContenderError(done.stderr.strip().splitlines()[-1])
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def _train(self, run: Run) -> dict[str, Any]:
        runner, tokens = self.runner, run.tokens
        if run.old:
            assert self.old is not None
            runner = replace(runner, source=self.old / "src")
            tokens = _for_old_code(tokens, runner.directory / "tokens-old" / tokens.name)
        out = runner.directory / "models" / run.name
        # Both planners have a cache of compiled kernels and a history of predictions that is kept between runs.
        cache = runner.directory / "cache" / ("old" if run.old else "new")
        with tempfile.TemporaryDirectory(dir=_made(out.parent)) as directory:
            model = Path(directory) / "model"
            timing = pretrain(runner, run.name, model, [str(tokens), *run.arguments, "--seed", str(run.seed)], cache)
            facts = _facts(model)
            request = {"model": str(model), "tokens": str(run.tokens), "documents": None}
            scored = self.runner.run_worker(f"{run.name}-score", request, self.runner.environment("unused"))
        return {"seconds": timing.seconds, **facts, "score": scored["score"]}


@contextmanager
def old_checkout(given: Path | None) -> Iterator[Path]:
    """Yield the absolute path of a checkout of the old code: the given one, or a temporary Git worktree.

    Raises:
        FileNotFoundError: The given directory does not contain groundup, so the installed package would be measured.
    """
    if given is not None:
        if not (given / "src" / "groundup").is_dir():
            raise FileNotFoundError(f"{given} is not a checkout of groundup: src/groundup is missing")
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bench-small-text-old-") as directory:
        path = Path(directory) / "checkout"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), OLD_COMMIT], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=False)


@cache
def _commit(checkout: Path) -> str:
    """Return the abbreviated commit hash of a checkout."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _for_old_code(tokens: Path, copy: Path) -> Path:
    """Return a copy of token shards whose artifact has the format that the old code reads."""
    if not copy.is_dir():
        unfinished = _made(copy.parent) / f"{copy.name}.part"
        shutil.copytree(tokens, unfinished, dirs_exist_ok=True)
        record = read_json(tokens / ARTIFACT)
        old = {key: value for key, value in record.items() if key not in ("logs", "checksum")} | {"format_version": 1}
        write_json(unfinished / ARTIFACT, old)
        unfinished.rename(copy)
    return copy


def _facts(model: Path) -> Mapping[str, Any]:
    facts = read_json(model / ARTIFACT)["facts"]
    return {
        "parameters": facts["parameters"],
        "epochs": facts["plan"]["epochs"],
        "n_layers": facts["plan"]["model"]["n_layers"],
        "prediction": facts.get("prediction"),
    }


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
