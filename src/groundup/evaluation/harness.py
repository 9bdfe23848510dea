"""Tasks of lm-evaluation-harness (https://github.com/EleutherAI/lm-evaluation-harness) on a model directory.

The harness loads the model with transformers, so its scores are independent of the code of this package.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.core.console import Console
from groundup.core.errors import ConfigError, ResourceError
from groundup.core.telemetry import disable_telemetry
from groundup.evaluation.measure import Measure, mean
from groundup.evaluation.tasks import (
    EvaluationTask,
    TaskModel,
    TaskReport,
    TaskResult,
    read_task,
    score_tasks,
    tasks_identity,
)
from groundup.kernels import ComputeDtype
from groundup.kernels.machine import usable_device

_TASK = re.compile(r"^(?:task|group):\s*[\"']?([^\s\"'#]+)", re.MULTILINE)
_NAMED_FILE = re.compile(r"[^\s\"'\[\]{},]{1,200}")  # word of a YAML file that may be the path of a file
_YAML = (".yaml", ".yml")
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_BATCH_SIZE = 16
_SCALE = "share"  # The harness reports shares from 0 to 1, which are printed with 3 decimal places.


def read_tasks(
    paths: Sequence[Path], harness_tasks: Sequence[str], data: Path | None
) -> tuple[list[EvaluationTask], dict[str, str]]:
    """Read the tasks of an evaluation.

    Args:
        paths: files of tasks to score with groundup.
        harness_tasks: tasks to score with lm-evaluation-harness; see `score_with_harness`.
        data: other data that the user gave.

    Returns:
        The tasks to score with groundup, and digests that change if a task or its data changes.

    Raises:
        ConfigError: other data is given, or a task is not valid.
        DataError: a file of a task does not exist.
    """
    if data is not None:
        raise ConfigError(
            f"--data {data} together with --task or --lm-eval",
            rule="a task has its own data",
            fix=f"Remove --data, or score the file as a task: --task {data}.",
        )
    tasks = [read_task(path) for path in paths]
    digests = {"tasks": tasks_identity(tasks)}
    return tasks, digests | ({"lm_eval": _harness_identity(harness_tasks)} if harness_tasks else {})


def _harness_identity(tasks: Sequence[str]) -> str:
    """Return a digest of the names, sizes and modification times of the files of tasks.

    These are the files in the folder of a YAML file, such as functions and other tasks that it includes, and the data
    that the YAML file names.
    """
    digest = hashlib.blake2b("\0".join(tasks).encode(), digest_size=16)
    files = set[Path]()
    for path in map(Path, tasks):
        if path.suffix in _YAML:
            _task_name(path)  # The file exists.
            named = (Path(word) for word in _NAMED_FILE.findall(path.read_text(encoding="utf-8")))
            files |= {each.resolve() for each in (*path.parent.iterdir(), *named) if each.is_file()}
    for each in sorted(files):
        status = each.stat()
        digest.update(f"{each}\0{status.st_size}\0{status.st_mtime_ns}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def evaluate_tasks(
    directory: Path,
    tasks: Sequence[EvaluationTask],
    harness_tasks: Sequence[str],
    console: Console,
    *,
    seed: int = 0,
    dtype: ComputeDtype | None = None,
    device: str | None = None,
) -> TaskReport:
    """Score a model on tasks, and on tasks of lm-evaluation-harness.

    Args:
        directory: directory of the model.
        tasks: tasks to score with groundup.
        harness_tasks: tasks to score with lm-evaluation-harness; see `score_with_harness`.
        console: console that prints progress.
        seed: seed of the bootstrap.
        dtype: data type to compute in; default: float32 for log-likelihoods, and the fastest for generation.
        device: device to compute on, or None for a GPU if available.
    """
    results = []
    if tasks:
        results = score_tasks(TaskModel.load(directory, device, console, dtype=dtype, seed=seed), tasks, console)
    if harness_tasks:
        results += score_with_harness(directory, harness_tasks, console, dtype=dtype, device=device)
    return TaskReport(results)


def score_with_harness(
    directory: Path,
    tasks: Sequence[str],
    console: Console,
    *,
    dtype: ComputeDtype | None = None,
    device: str | None = None,
) -> list[TaskResult]:
    """Score a model with lm-evaluation-harness.

    Args:
        directory: model directory that transformers can load.
        tasks: names of tasks of the harness, which downloads their data; or YAML files of tasks, which run offline.
        console: console that prints notes.
        dtype: data type to compute in; default: float32.
        device: device to compute on, or None for a GPU if available.

    Returns:
        One result per task, with the metrics and the scale of the harness.

    Raises:
        ResourceError: the package lm_eval is not installed.
        ConfigError: a task is unknown, or the model is not a directory.
    """
    if directory.is_file():
        raise ConfigError(
            f"{directory}: lm-evaluation-harness needs a model directory",
            fix=f"Import the file first: groundup import {directory}.",
        )
    paths = [Path(task) for task in tasks if task.endswith(_YAML)]
    names = [_task_name(Path(task)) if Path(task) in paths else task for task in tasks]
    disable_telemetry()
    with _offline(enabled=len(paths) == len(tasks)):
        lm_eval, manager = _harness(names, paths)
        console.note(f"Running lm-evaluation-harness: {', '.join(names)}.")
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(directory), "dtype": dtype or "float32"},
            tasks=names,
            task_manager=manager,
            device=usable_device(device),
            batch_size=_BATCH_SIZE,
            bootstrap_iters=0,
            log_samples=True,
        )
    return [_result(name, found) for name in found["samples"]]


def _harness(names: Sequence[str], paths: Sequence[Path]) -> tuple[Any, Any]:
    """Return the package lm_eval, and its task manager with the tasks of these files."""
    try:
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ResourceError(
            f"--lm-eval needs the package {error.name}", fix="Run: pip install 'groundup[lm-eval]'."
        ) from None
    folders = sorted({str(path.parent.resolve()) for path in paths})
    manager = TaskManager(include_path=folders or None, include_defaults=len(paths) < len(names))
    if unknown := [name for name in names if not manager.match_tasks([name])]:
        raise ConfigError(
            f"--lm-eval {unknown[0]}: no such task in lm-evaluation-harness",
            fix="List the tasks: lm_eval ls tasks. Or give the YAML file of a task.",
        )
    return lm_eval, manager


def _result(name: str, found: Mapping[str, Any]) -> TaskResult:
    samples = sorted(found["samples"][name], key=lambda sample: int(sample["doc_id"]))
    higher = found.get("higher_is_better", {}).get(name, {})
    measures = []
    for key, value in found["results"][name].items():
        metric, _, filtered = key.partition(",")
        if isinstance(value, int | float) and filtered and not metric.endswith("_stderr"):
            label = metric if filtered == "none" else f"{metric} ({filtered})"
            measures.append(_measure(label, metric, filtered, float(value), samples, higher.get(metric) is False))
    kept = [sample for sample in samples if sample.get("filter", "none") == samples[0].get("filter", "none")]
    items = [
        {
            "item": sample["doc_id"],
            "target": str(sample.get("target", "")),
            "responses": json.loads(json.dumps(sample.get("filtered_resps"), default=str)),
            **{metric: sample[metric] for metric in sample.get("metrics", ()) if _is_number(sample.get(metric))},
        }
        for sample in kept
    ]
    version = found.get("versions", {}).get(name)
    shots = found.get("n-shot", {}).get(name, 0)
    note = f"lm-evaluation-harness {found.get('lm_eval_version', '')}, task version {version}, {shots}-shot."
    return TaskResult(name, "lm-eval", measures, items, notes=[note])


def _measure(
    label: str, metric: str, filtered: str, value: float, samples: Sequence[Mapping[str, Any]], lower_is_better: bool
) -> Measure:
    """Return a metric of the harness. Its interval is known if the metric is the mean over the items."""
    chosen = [sample for sample in samples if sample.get("filter", "none") == filtered]
    values = [sample.get(metric) for sample in chosen]
    if values and all(map(_is_number, values)):
        measure = mean(label, [float(each) for each in values if each is not None], unit=_SCALE)
        if abs(measure.estimate - value) < 1e-6:
            return mean(label, measure.sums_EK[:, 0], unit=_SCALE, lower_is_better=lower_is_better)
    return mean(label, [value], unit=_SCALE, lower_is_better=lower_is_better)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _task_name(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"--lm-eval {path}: no such file", fix="Check the path.")
    found = _TASK.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise ConfigError(f"--lm-eval {path}: no key task", fix="Add a line with the name of the task: task: NAME.")
    return found[1]


@contextmanager
def _offline(*, enabled: bool) -> Iterator[None]:
    """Let the libraries of Hugging Face use only local files. They read these variables when they are imported."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    if enabled:
        os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
