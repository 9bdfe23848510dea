"""Inject random faults into the files that groundup writes, and check that each fault is detected or harmless.

    python tools/fault_injection.py WORK_DIRECTORY [--faults 200] [--seed 0] [--kinds model,checkpoint] [--disk DIR]

The tool creates a small run once. There are three types of faults. The tool damages a file of an artifact (it flips a
bit, overwrites 64 bytes with random bytes, or truncates the file) and runs the command that reads the artifact. Or the
tool kills a command at a random time and runs the command again. Or the tool fills the disk while a command runs, and
runs the command again. Each fault uses a new copy of the small run. The result of the command is compared with the
expected result, and the outcome is one of

    detected   The command fails with an error message.
    recovered  The command prints a warning, and the result is the expected result.
    warned     The command prints a warning, and the result differs.
    harmless   The command prints no message, and the result is the expected result.
    SILENT     The command prints no message, and the result differs.
    CRASH      The command prints a traceback.

Commands run in forks of this process, so that torch is imported only once. To test a real full disk, pass a small
mounted file system, such as a tmpfs, as `--disk`. Otherwise, the tool limits the file size, and the same writes fail.
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
FAST = ["--set", "threads=1", "--set", "baseline=false", "--set", "checkpoint_seconds=0", "--num-epochs", "1"]
DAMAGES = ("flip", "burst", "truncate")
OUTCOMES = ("detected", "recovered", "warned", "harmless", "SILENT", "CRASH")


@dataclass(frozen=True)
class CommandResult:
    """The exit code, output and wall time of a command."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Kind:
    """A kind of artifact that the tool damages.

    Attributes:
        name: Name of the kind.
        place: Directory of the artifact in the small run.
        files: Glob patterns of the files that may be damaged.
        command: Arguments of the groundup command that reads the artifact.
        result: A function that returns the result of the command.
    """

    name: str
    place: str
    files: tuple[str, ...]
    command: tuple[str, ...]
    result: Callable[[Path, CommandResult], object]


@dataclass
class Fault:
    """A fault that was injected, and its outcome."""

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
) -> CommandResult:
    """Run a groundup command in a fork of this process.

    Args:
        command: Arguments of the command.
        directory: Working directory of the command.
        kill_when: A function that takes the seconds since the start, and returns whether to kill the command. If None,
            the command is not killed.
        limit: Maximum size of a file in bytes. If 0, file sizes are not limited.
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
    return CommandResult(os.waitstatus_to_exitcode(status), out, err, time.monotonic() - started)


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


def same_files(*names: str) -> Callable[[Path, CommandResult], object]:
    """Return a function whose result is the content of files. Of log files, the result contains only the losses."""

    def result(directory: Path, _: CommandResult) -> object:
        found = (path for pattern in names for path in sorted(directory.glob(pattern)))
        return {path.relative_to(directory).as_posix(): _content(path) for path in found}

    return result


def _content(path: Path) -> object:
    if path.suffix != ".jsonl":
        return path.read_bytes()
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [row.get("loss") for row in rows]


def output_of(_: Path, ended: CommandResult) -> object:
    """Return the output of a command."""
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
    Kind("model", "base", FILES, GENERATE, output_of),
    Kind("tokens", "tokens", ("**/*",), PRETRAIN, TRAINED),
    Kind("corpus", "corpus", ("**/*.parquet", "*.json"), TOKENIZE, TOKENS),
    Kind("classifier", "labels", FILES, ("classify", "labels", "a while loop"), output_of),
    Kind("adapter", "adapter", FILES, ("classify", "adapter", "a while loop"), output_of),
    Kind("export", "export", ("*.gguf", "*.gguf.json"), IMPORT, IMPORTED),
    Kind("checkpoint", "new", ("checkpoints/**/*", "plan.json", "started.json", "*.jsonl"), PRETRAIN, TRAINED),
    Kind("report", ".", LOGS, ("report", "."), same_files("report.html")),
]
STAGES = {
    "collect": (("collect", "--folder", "notes", "--out", "new", "--set", "workers=1"), same_files("new/*.parquet")),
    "tokenize": (TOKENIZE, TOKENS),
    "pretrain": (PRETRAIN, TRAINED),
    "classify": (
        ("finetune", "classify", "table.csv", "--model", "base", "--out", "new", "--method", "full", *FAST),
        same_files("new/model.safetensors", "new/metrics.jsonl"),
    ),
    # This command replaces a finished output. The old output must remain until the new output is complete.
    "replace": (
        ("pretrain", "tokens", "--out", "base", "--tokens", "24000", *SHAPE, "--seed", "1"),
        same_files("base/model.safetensors"),
    ),
}


def prepare(small: Path) -> None:
    """Create the small run, with a corpus, a model, a classifier, an adapter, an export and an interrupted training."""
    small.mkdir(parents=True)
    (small / "notes").mkdir()
    for name, text in sorted(topics.items()):
        (small / "notes" / f"{name}.txt").write_text(text, encoding="utf-8")
    rows = [(" ".join(text.split()[:6]), "code" if text.count("=") > 8 else "prose") for text in topics.values()]
    table = "".join(f'"{text.replace(chr(34), "")}",{label}\n' for text, label in rows)
    (small / "table.csv").write_text(f"text,label\n{table}", encoding="utf-8")
    tune = ("finetune", "classify", "table.csv", "--model", "base", *FAST)
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
    interrupt_training(small)


def interrupt_training(small: Path) -> None:
    """Create the directory `new` with a training run that was killed after two checkpoints."""
    new = small / "new"

    def saved_two(_: float = 0.0) -> bool:
        return len(list(new.glob("checkpoints/step-*"))) >= 2

    while not saved_two() or (new / "artifact.json").exists():
        shutil.rmtree(new, ignore_errors=True)  # the training may have finished before the kill
        run(PRETRAIN, small, kill_when=saved_two)


def copy_run(small: Path, work: Path, used_by: str) -> None:
    """Copy the small run, except directories that the fault does not use."""
    unused = [*([] if used_by == "new" else ["new"]), *([] if used_by == "collect" else ["notes"])]
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(small, work, symlinks=True, ignore=shutil.ignore_patterns(*unused))


def damage(path: Path, how: str, generator: random.Random) -> str:
    """Damage a file in place and return a description of the damage."""
    content = bytearray(path.read_bytes())
    size = len(content)
    offset = generator.randrange(size)
    if how == "flip":
        content[offset] ^= 1 << generator.randrange(8)
    elif how == "burst":
        content[offset : offset + 64] = generator.randbytes(min(64, size - offset))
    else:
        del content[offset:]
    path.write_bytes(content)
    return f"{path.name} at {offset:,} of {size:,}"


def classify_outcome(ended: CommandResult, same: bool) -> tuple[str, str]:
    """Return the outcome of a command that has read a damaged file, and the message that the command printed."""
    lines = [line.strip() for line in ended.err.splitlines()]
    message = next((line for line in lines if line.startswith(("error", "warning"))), "")
    if "Traceback" in ended.err:
        return "CRASH", lines[-3] if len(lines) > 2 else ""
    if ended.code:
        return "detected", message
    if "does not match" in ended.err or "do not match" in ended.err or "amaged" in ended.err:
        return ("recovered" if same else "warned"), message
    return ("harmless" if same else "SILENT"), ""


def inject_damage(kind: Kind, small: Path, work: Path, expected: object, how: str, generator: random.Random) -> Fault:
    """Damage one file in a copy of the small run, and run the command that reads the file."""
    copy_run(small, work, kind.place)
    place = work / kind.place
    files = sorted({p for pattern in kind.files for p in place.glob(pattern) if p.is_file() and p.stat().st_size})
    detail = damage(generator.choice(files), how, generator)
    ended = run(kind.command, work)
    outcome, message = classify_outcome(ended, kind.result(work, ended) == expected)
    return Fault(kind.name, how, detail, outcome, message)


def inject_kill(
    stage: str, small: Path, work: Path, expected: object, max_seconds: float, generator: random.Random
) -> Fault:
    """Kill a stage at a random time, run the stage again, and compare its result with the expected result."""
    command, result = STAGES[stage]
    copy_run(small, work, stage)
    kill_after = generator.uniform(0, max_seconds)
    before = (small / "base" / "model.safetensors").read_bytes()
    run(command, work, kill_when=lambda seconds: seconds >= kill_after)
    intact = run(("model", "verify", "base"), work).code == 0
    present = (work / "base" / "model.safetensors").read_bytes() if intact else b""
    if stage == "replace" and present not in (before, expected_of(expected)):
        return Fault(stage, "kill", f"after {kill_after:.2f} s", "SILENT", "the finished output is missing")
    ended = run(command, work)
    same = ended.code == 0 and result(work, ended) in (expected, result_with_same_plan(stage, small, work))
    outcome = "harmless" if same else classify_outcome(ended, same)[0]
    return Fault(stage, "kill", f"after {kill_after:.2f} s", outcome, "" if same else ended.err[-200:])


def result_with_same_plan(stage: str, small: Path, work: Path) -> object:
    """Run the stage without interruption, with the plan of the interrupted stage, and return the result.

    A plan depends on time measurements, so two runs on a busy machine can have different plans.
    """
    from groundup.core.checksums import write_checked_json

    plan, clean = work / "new" / "plan.json", work.with_name("uninterrupted")
    if not plan.is_file():
        return None
    command, result = STAGES[stage]
    copy_run(small, clean, stage)
    (clean / "new").mkdir()
    shutil.copy(plan, clean / "new")
    made = json.loads((work / "new" / "artifact.json").read_text(encoding="utf-8"))
    begun = {"stage": made["stage"], "fingerprint": made["fingerprint"], "seconds": 0.0, "kept": {}}
    write_checked_json(clean / "new" / "started.json", begun)
    found = result(clean, run(command, clean))
    shutil.rmtree(clean)
    return found


def expected_of(expected: object) -> object:
    """Return the content of the only file in a result."""
    return next(iter(expected.values())) if isinstance(expected, dict) else None


def inject_full_disk(
    stage: str, small: Path, work: Path, expected: object, disk: Path | None, generator: random.Random
) -> Fault:
    """Run a stage on a disk that becomes full at a random size. Then run the stage again with enough disk space."""
    command, result = STAGES[stage]
    place = work if disk is None else disk / "work"
    copy_run(small, place, stage)
    if disk is None:
        limit = generator.randrange(1 << 10, 1 << 20)
        detail, first = f"files of at most {limit:,} bytes", run(command, place, limit=limit)
    else:
        free = generator.choice([generator.randrange(1 << 12, 2 << 20), generator.randrange(10_500_000, 13_500_000)])
        filler = disk / "filler"
        with filler.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(disk).free - free)))
        detail, first = f"{free:,} bytes free", run(command, place)
        filler.unlink()
    ended = first if first.code == 0 else run(command, place)
    same = ended.code == 0 and result(place, ended) in (expected, result_with_same_plan(stage, small, place))
    outcome = ("harmless" if first.code == 0 else "detected") if same else classify_outcome(ended, same)[0]
    if "Traceback" in first.err:
        outcome = "CRASH"
    message = next((line for line in first.err.splitlines() if line.startswith("error")), "")
    if place != work:
        shutil.rmtree(place)
    return Fault(stage, "full disk", detail, outcome, message if same else ended.err[-200:])


def main() -> int:
    """Inject the faults and print their outcomes. Return 1 if any outcome is SILENT or CRASH, otherwise 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--faults", type=int, default=200, help="number of faults [200]")
    parser.add_argument("--seed", type=int, default=0, help="random seed [0]")
    parser.add_argument("--kinds", default="", help="kinds of faults, separated by commas [all]")
    parser.add_argument("--disk", type=Path, help="mounted file system of about 30 MB to fill")
    args = parser.parse_args()
    _import_all()
    small, generator = args.directory.resolve() / "small", random.Random(args.seed)
    if not small.exists():
        prepare(small)
    faults: list[Fault] = []
    for number, inject in enumerate(_plan(args, small, generator)):
        work = args.directory.resolve() / f"fault-{number:04d}"
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
        stage.module  # noqa: B018  imports the module once for all forks
    for module in (
        "groundup.train",
        "groundup.evaluation.classifiers.evaluation",
        "groundup.hub.integrity",
        "groundup.hub.gguf",
        "pyarrow.parquet",
    ):
        __import__(module)
    import torch

    torch.set_num_threads(1)


def _plan(args: argparse.Namespace, small: Path, generator: random.Random) -> Iterator[Callable[[Path], Fault]]:
    """Yield functions that inject a fault. The faults are distributed evenly over all kinds."""
    selected = args.kinds.split(",") if args.kinds else [*(kind.name for kind in KINDS), *STAGES]
    injections: list[Callable[[Path], Fault]] = []
    for kind in (kind for kind in KINDS if kind.name in selected):
        clean = args.directory.resolve() / f"clean-{kind.name}"
        copy_run(small, clean, kind.place)
        ended = run(kind.command, clean)
        if ended.code:
            raise SystemExit(f"groundup {' '.join(kind.command)}\n{ended.err}")
        expected = kind.result(clean, ended)
        injections += [
            lambda work, k=kind, e=expected, how=how: inject_damage(k, small, work, e, how, generator)  # type: ignore[misc]
            for how in DAMAGES
        ]
        shutil.rmtree(clean)
    for stage in (stage for stage in STAGES if stage in selected):
        clean = args.directory.resolve() / f"clean-{stage}"
        copy_run(small, clean, stage)
        ended = run(STAGES[stage][0], clean)
        expected = STAGES[stage][1](clean, ended)
        injections.append(
            lambda work, s=stage, e=expected, t=ended.seconds: inject_kill(s, small, work, e, t, generator)
        )  # type: ignore[misc]
        injections.append(lambda work, s=stage, e=expected: inject_full_disk(s, small, work, e, args.disk, generator))  # type: ignore[misc]
        shutil.rmtree(clean)
    for number in range(args.faults):
        yield injections[number % len(injections)]


def _print_table(faults: list[Fault]) -> None:
    counts = collections.Counter((fault.kind, fault.damage, fault.outcome) for fault in faults)
    print(f"\n| kind | fault | {' | '.join(OUTCOMES)} |\n| --- | --- |{' ---: |' * len(OUTCOMES)}")
    for kind, how in dict.fromkeys((fault.kind, fault.damage) for fault in faults):
        print(f"| {kind} | {how} | {' | '.join(str(counts[kind, how, outcome]) for outcome in OUTCOMES)} |")
    totals = collections.Counter(fault.outcome for fault in faults)
    print(f"| all | {len(faults)} | {' | '.join(str(totals[outcome]) for outcome in OUTCOMES)} |")


if __name__ == "__main__":
    sys.exit(main())
