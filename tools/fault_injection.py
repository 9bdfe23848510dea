"""Damage everything that groundup writes, at random, and see whether each fault is detected or harmless.

    python tools/fault_injection.py WORK_DIRECTORY [--faults 200] [--seed 0] [--kinds model,checkpoint] [--disk DIR]

A small run is made once. Each fault then damages a copy of one artifact (a flipped bit, 64 random bytes, a truncation),
kills a command at a random moment, or fills the disk under it. The command that reads the artifact, or the interrupted
command again, is run, and its result is compared with the undamaged one:

    detected   the command failed with an error that says what is wrong
    recovered  the command warned, and its result is the undamaged one
    warned     the command warned, and its result differs
    harmless   no message, and the result is the undamaged one
    SILENT     no message, and the result differs
    CRASH      a traceback

Commands run in forks of this process, so that torch is imported once. A full disk needs a small file system of its own
(`--disk`, e.g. a mounted tmpfs); without one, files are limited in size, which fails in the same places.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics

os.environ.setdefault("OMP_NUM_THREADS", "1")

SHAPE = [
    *("--set", "shape.dim=64", "--set", "shape.n_layers=2", "--set", "shape.context_length=64"),
    *("--set", "compile=false", "--set", "threads=1", "--set", "num_evaluations=1", "--set", "checkpoint_seconds=0"),
]
GENTLE = ["--set", "threads=1", "--set", "baseline=false", "--set", "checkpoint_seconds=0", "--num-epochs", "1"]
DAMAGES = ("flip", "burst", "truncate")
COUNTED = ("detected", "recovered", "warned", "harmless", "SILENT", "CRASH")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Kind:
    """One kind of artifact.

    Attributes:
        place: What is copied and damaged, in the directory of the small run.
        files: Patterns of the files that are damaged.
        command: What reads it; DIR is the copy of the whole run.
        result: What the command's result is.
    """

    name: str
    place: str
    files: tuple[str, ...]
    command: tuple[str, ...]
    result: Callable[[Path, Ended], object]


@dataclass
class Fault:
    """One fault and what became of it."""

    kind: str
    damage: str
    detail: str
    outcome: str
    message: str = field(default="")


def run(
    command: list[str] | tuple[str, ...],
    directory: Path,
    *,
    kill_when: Callable[[float], bool] | None = None,
    limit: int = 0,
) -> Ended:
    """Run a groundup command in a fork.

    Args:
        command: Its words.
        directory: The working directory.
        kill_when: Given the seconds since the start, whether to kill it now; None: it runs to its end.
        limit: Bytes that a file may have; 0: no limit.
    """
    log = [directory / "out.txt", directory / "err.txt"]
    started = time.monotonic()
    child = os.fork()
    if not child:
        _become(list(command), directory, log, limit)
    if kill_when is None:
        _, status = os.waitpid(child, 0)
    else:
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and not kill_when(time.monotonic() - started):
            time.sleep(0.002)
        if not ended[0]:
            os.killpg(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
        status = ended[1]
    out, err = (path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "" for path in log)
    return Ended(os.waitstatus_to_exitcode(status), out, err, time.monotonic() - started)


def _become(command: list[str], directory: Path, log: list[Path], limit: int) -> None:
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(directory)
        for number, path in enumerate(log, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        from groundup.cli import main

        main(command)
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def same_files(*names: str) -> Callable[[Path, Ended], object]:
    """A result that is files; of a log, its losses."""

    def result(directory: Path, _: Ended) -> object:
        found = (path for pattern in names for path in sorted(directory.glob(pattern)))
        return {path.relative_to(directory).as_posix(): _content(path) for path in found}

    return result


def _content(path: Path) -> object:
    if path.suffix != ".jsonl":
        return path.read_bytes()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [row.get("loss") for row in rows]


def printed(_: Path, ended: Ended) -> object:
    """A result that is printed."""
    return ended.out


PRETRAIN = ("pretrain", "tokens", "--out", "new", "--tokens", "24000", *SHAPE)
FILES = ("*.json", "*.safetensors", "learned*")
TOKENIZE = ("tokenize", "corpus", "--out", "new", "--vocab-size", "512")
IMPORT = ("import", "export/base.gguf", "--out", "new", "--set", "verify=false")
GENERATE = ("generate", "base", "The", "--max-tokens", "24", "--temperature", "0")
LOGS = ("base/*.jsonl", "base/plan.json", "corpus/card.json", "tokens/*.json")
TRAINED = same_files("new/model.safetensors", "new/metrics.jsonl")
TOKENS = same_files("new/*.npy", "new/tokenizer/*")
IMPORTED = same_files("new/*.safetensors", "new/*config.json", "new/tokenizer.json")
KINDS = [
    Kind("model", "base", FILES, GENERATE, printed),
    Kind("tokens", "tokens", ("**/*",), PRETRAIN, TRAINED),
    Kind("corpus", "corpus", ("**/*.parquet", "*.json"), TOKENIZE, TOKENS),
    Kind("classifier", "labels", FILES, ("classify", "labels", "a while loop"), printed),
    Kind("adapter", "adapter", FILES, ("classify", "adapter", "a while loop"), printed),
    Kind("export", "export", ("*.gguf", "*.gguf.json"), IMPORT, IMPORTED),
    Kind("checkpoint", "new", ("checkpoints/**/*", "plan.json", "started.json", "*.jsonl"), PRETRAIN, TRAINED),
    Kind("report", ".", LOGS, ("report", "."), same_files("report.html")),
]
STAGES = {
    "collect": (("collect", "--folder", "notes", "--out", "new", "--set", "workers=1"), same_files("new/*.parquet")),
    "tokenize": (TOKENIZE, TOKENS),
    "pretrain": (PRETRAIN, TRAINED),
    "classify": (
        ("finetune", "classify", "table.csv", "--model", "base", "--out", "new", "--method", "full", *GENTLE),
        same_files("new/model.safetensors", "new/metrics.jsonl"),
    ),
    # Over a finished output of other settings, which must stay until the new one takes its place.
    "replace": (
        ("pretrain", "tokens", "--out", "base", "--tokens", "24000", *SHAPE, "--seed", "1"),
        same_files("base/model.safetensors"),
    ),
}


def prepare(small: Path) -> None:
    """Make the small run that is damaged: real text, a model, a classifier, an adapter, an export, half a training."""
    small.mkdir(parents=True)
    (small / "notes").mkdir()
    for name, text in sorted(topics.items()):
        (small / "notes" / f"{name}.txt").write_text(text, encoding="utf-8")
    rows = [(" ".join(text.split()[:6]), "code" if text.count("=") > 8 else "prose") for text in topics.values()]
    table = "".join(f'"{text.replace(chr(34), "")}",{label}\n' for text, label in rows)
    (small / "table.csv").write_text(f"text,label\n{table}", encoding="utf-8")
    tune = ("finetune", "classify", "table.csv", "--model", "base", *GENTLE)
    for command in (
        (*STAGES["collect"][0][:4], "corpus", *STAGES["collect"][0][5:]),
        ("tokenize", "corpus", "--out", "tokens", "--vocab-size", "512"),
        ("pretrain", "tokens", "--out", "base", "--tokens", "24000", *SHAPE),
        (*tune, "--out", "labels", "--method", "full"),
        (*tune, "--out", "adapter", "--method", "lora"),
        ("export", "gguf", "base", "--out", "export/base.gguf", "--set", "verify=false"),
    ):
        ended = run(command, small)
        if ended.code:
            raise SystemExit(f"groundup {' '.join(command)}\n{ended.err}")
    half_trained(small)


def half_trained(small: Path) -> None:
    """Leave `new` as a training that was killed when it had saved two states."""
    new = small / "new"

    def saved_two(_: float = 0.0) -> bool:
        return len(list(new.glob("checkpoints/step-*"))) >= 2

    while not saved_two() or (new / "artifact.json").exists():
        shutil.rmtree(new, ignore_errors=True)  # it finished before it was killed
        run(PRETRAIN, small, kill_when=saved_two)


def copied(small: Path, work: Path, used_by: str) -> None:
    """Copy the small run, without what is not used."""
    unused = [*([] if used_by == "new" else ["new"]), *([] if used_by == "collect" else ["notes"])]
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(small, work, symlinks=True, ignore=shutil.ignore_patterns(*unused))


def damage(path: Path, how: str, chance: random.Random) -> str:
    """Damage a file; returns where."""
    content = bytearray(path.read_bytes())
    size = len(content)
    place = chance.randrange(size)
    if how == "flip":
        content[place] ^= 1 << chance.randrange(8)
    elif how == "burst":
        content[place : place + 64] = chance.randbytes(min(64, size - place))
    else:
        del content[place:]
    path.write_bytes(content)
    return f"{path.name} at {place:,} of {size:,}"


def judged(ended: Ended, same: bool) -> tuple[str, str]:
    """The outcome of a command that read something damaged, and what it said."""
    lines = [line.strip() for line in ended.err.splitlines()]
    said = next((line for line in lines if line.startswith(("error", "warning"))), "")
    if "Traceback" in ended.err:
        return "CRASH", lines[-3] if len(lines) > 2 else ""
    if ended.code:
        return "detected", said
    if "does not match" in ended.err or "do not match" in ended.err or "amaged" in ended.err:
        return ("recovered" if same else "warned"), said
    return ("harmless" if same else "SILENT"), ""


def damaged(kind: Kind, small: Path, work: Path, expected: object, how: str, chance: random.Random) -> Fault:
    """Damage one file of a copy, and run what reads it."""
    copied(small, work, kind.place)
    place = work / kind.place
    files = sorted({p for pattern in kind.files for p in place.glob(pattern) if p.is_file() and p.stat().st_size})
    detail = damage(chance.choice(files), how, chance)
    ended = run(kind.command, work)
    outcome, message = judged(ended, kind.result(work, ended) == expected)
    return Fault(kind.name, how, detail, outcome, message)


def killed(stage: str, small: Path, work: Path, expected: object, longest: float, chance: random.Random) -> Fault:
    """Kill a stage at a random moment, run it again, and compare."""
    command, result = STAGES[stage]
    copied(small, work, stage)
    live = chance.uniform(0, longest)
    before = (small / "base" / "model.safetensors").read_bytes()
    run(command, work, kill_when=lambda seconds: seconds >= live)
    intact = run(("model", "verify", "base"), work).code == 0
    there = (work / "base" / "model.safetensors").read_bytes() if intact else b""
    if stage == "replace" and there not in (before, expected_of(expected)):
        return Fault(stage, "kill", f"after {live:.2f} s", "SILENT", "the finished output is gone")
    ended = run(command, work)
    same = ended.code == 0 and result(work, ended) in (expected, with_its_plan(stage, small, work))
    outcome = "harmless" if same else judged(ended, same)[0]
    return Fault(stage, "kill", f"after {live:.2f} s", outcome, "" if same else ended.err[-200:])


def with_its_plan(stage: str, small: Path, work: Path) -> object:
    """The undisturbed result of a stage with the plan of a disturbed one: on a busy machine, plans differ.

    Which kernels and which dtype a plan has is decided by measurements.
    """
    from groundup.core.checksums import write_checked_json

    plan, clean = work / "new" / "plan.json", work.with_name("undisturbed")
    if not plan.is_file():
        return None
    command, result = STAGES[stage]
    copied(small, clean, stage)
    (clean / "new").mkdir()
    shutil.copy(plan, clean / "new")
    made = json.loads((work / "new" / "artifact.json").read_text(encoding="utf-8"))
    begun = {"stage": made["stage"], "fingerprint": made["fingerprint"], "seconds": 0.0}
    write_checked_json(clean / "new" / "started.json", begun)
    found = result(clean, run(command, clean))
    shutil.rmtree(clean)
    return found


def expected_of(expected: object) -> object:
    """The one file of a result."""
    return next(iter(expected.values())) if isinstance(expected, dict) else None


def filled(stage: str, small: Path, work: Path, expected: object, disk: Path | None, chance: random.Random) -> Fault:
    """Let the disk be full at a random size of what a stage writes; then run it again with room."""
    command, result = STAGES[stage]
    place = work if disk is None else disk / "work"
    copied(small, place, stage)
    if disk is None:
        limit = chance.randrange(1 << 10, 1 << 20)
        detail, first = f"files of at most {limit:,} bytes", run(command, place, limit=limit)
    else:
        room = chance.choice([chance.randrange(1 << 12, 2 << 20), chance.randrange(10_500_000, 13_500_000)])
        filler = disk / "filler"
        with filler.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(disk).free - room)))
        detail, first = f"{room:,} bytes free", run(command, place)
        filler.unlink()
    ended = first if first.code == 0 else run(command, place)
    same = ended.code == 0 and result(place, ended) in (expected, with_its_plan(stage, small, place))
    outcome = ("harmless" if first.code == 0 else "detected") if same else judged(ended, same)[0]
    if "Traceback" in first.err:
        outcome = "CRASH"
    message = next((line for line in first.err.splitlines() if line.startswith("error")), "")
    if place != work:
        shutil.rmtree(place)
    return Fault(stage, "full disk", detail, outcome, message if same else ended.err[-200:])


def main() -> int:
    """Prepare, inject, print a line for each fault and a table; 1 when any fault was silent or crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="", help="only these, separated by commas")
    parser.add_argument("--disk", type=Path, help="a mounted file system of some 30 MB, to fill")
    given = parser.parse_args()
    _import_all()
    small, chance = given.directory.resolve() / "small", random.Random(given.seed)
    if not small.exists():
        prepare(small)
    faults: list[Fault] = []
    for number, inject in enumerate(_plan(given, small, chance)):
        work = given.directory.resolve() / f"fault-{number:04d}"
        fault = inject(work)
        faults.append(fault)
        print(
            f"{number + 1:4d} {fault.outcome:<10} {fault.kind:<11} {fault.damage:<9}",
            f"{fault.detail}  {fault.message[:150]}",
            flush=True,
        )
        if fault.outcome not in ("SILENT", "CRASH"):
            shutil.rmtree(work, ignore_errors=True)
    _print_table(faults)
    return int(any(fault.outcome in ("SILENT", "CRASH") for fault in faults))


def _import_all() -> None:
    from groundup.commands import STAGES as ALL

    for stage in ALL.values():
        stage.module  # noqa: B018  imported here, once for all forks
    for module in (
        "groundup.train",
        "groundup.evaluation.classifier_evaluation",
        "groundup.hub.integrity",
        "groundup.hub.gguf",
        "pyarrow.parquet",
    ):
        __import__(module)
    import torch

    torch.set_num_threads(1)


def _plan(given: argparse.Namespace, small: Path, chance: random.Random) -> Iterator[Callable[[Path], Fault]]:
    """The faults, evenly over all kinds: half of them damage files."""
    wanted = given.kinds.split(",") if given.kinds else [*(kind.name for kind in KINDS), *STAGES]
    ways: list[Callable[[Path], Fault]] = []
    for kind in (kind for kind in KINDS if kind.name in wanted):
        clean = given.directory.resolve() / f"clean-{kind.name}"
        copied(small, clean, kind.place)
        ended = run(kind.command, clean)
        if ended.code:
            raise SystemExit(f"groundup {' '.join(kind.command)}\n{ended.err}")
        expected = kind.result(clean, ended)
        ways += [
            lambda work, k=kind, e=expected, how=how: damaged(k, small, work, e, how, chance)  # type: ignore[misc]
            for how in DAMAGES
        ]
        shutil.rmtree(clean)
    for stage in (stage for stage in STAGES if stage in wanted):
        clean = given.directory.resolve() / f"clean-{stage}"
        copied(small, clean, stage)
        ended = run(STAGES[stage][0], clean)
        expected = STAGES[stage][1](clean, ended)
        ways.append(lambda work, s=stage, e=expected, t=ended.seconds: killed(s, small, work, e, t, chance))  # type: ignore[misc]
        ways.append(lambda work, s=stage, e=expected: filled(s, small, work, e, given.disk, chance))  # type: ignore[misc]
        shutil.rmtree(clean)
    for number in range(given.faults):
        yield ways[number % len(ways)]


def _print_table(faults: list[Fault]) -> None:
    counts = collections.Counter((fault.kind, fault.damage, fault.outcome) for fault in faults)
    print(f"\n| kind | fault | {' | '.join(COUNTED)} |\n| --- | --- |{' ---: |' * len(COUNTED)}")
    for kind, how in dict.fromkeys((fault.kind, fault.damage) for fault in faults):
        print(f"| {kind} | {how} | {' | '.join(str(counts[kind, how, outcome]) for outcome in COUNTED)} |")
    totals = collections.Counter(fault.outcome for fault in faults)
    print(f"| all | {len(faults)} | {' | '.join(str(totals[outcome]) for outcome in COUNTED)} |")


if __name__ == "__main__":
    sys.exit(main())
