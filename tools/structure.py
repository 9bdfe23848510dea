"""Check the limits for functions, files, public names and imports, and measure the size of the code.

    python tools/structure.py check    # prints violations and exits with code 1 if it finds one; part of `make check`
    python tools/structure.py bench    # prints measurements as JSON in the last line; part of `make bench-structure`

Ruff measures the number of parameters (PLR0913) and the McCabe complexity (C901). Both limits are in pyproject.toml.
The length of a function includes the `def` line and the docstring but not the decorators.
"""

from __future__ import annotations

import argparse
import ast
import collections
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/groundup")
# File lengths are checked in these directories. The limits for functions and names apply only to the package.
CHECKED_DIRECTORIES = ("src", "tests", "tools", "benchmarks")

MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 8
MAX_FILE_LINES = 600
MAX_COMMAND_LINES = 150
MAX_DUPLICATE_NAMES = 5
MAX_EXCEPTIONS = 10

# Maps "path", "path::function" or "path::Class.function" to the reason why it may exceed a limit.
EXCEPTIONS: Mapping[str, str] = {
    "src/groundup/model/config.py": "a config is checked against its family; families import the config only for types",
    "src/groundup/train/fit.py::fit": "the training loop: everything that a step depends on is an argument",
}
# Many modules may define these names. `run` is the entry point of each command.
CONVENTIONAL_NAMES = frozenset({"run"})

_TOO_MANY_PARAMETERS, _TOO_COMPLEX = "PLR0913", "C901"
_NON_CODE = frozenset({
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
})  # fmt: skip


@dataclass(frozen=True)
class Violation:
    """A value that exceeds its limit.

    Attributes:
        key: Key that identifies the violation in `EXCEPTIONS`.
        location: Location of the code, in the form `FILE:LINE`.
        message: A message with the value and the limit.
    """

    key: str
    location: str
    message: str


@dataclass(frozen=True)
class Function:
    """A function or method.

    Attributes:
        path: File that defines the function.
        name: Qualified name, such as "Class.function".
        line: Line number of the `def` line.
        lines: Number of lines of the function.
    """

    path: str
    name: str
    line: int
    lines: int

    @property
    def key(self) -> str:
        """Key that identifies the function in `EXCEPTIONS`."""
        return f"{self.path}::{self.name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `check` or `bench`, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("check", "bench"))
    parser.add_argument("--root", type=Path, default=ROOT, help="directory of the checkout [this one]")
    given = parser.parse_args(arguments)
    if given.command == "check":
        problems = check(given.root)
        print("\n".join(problems) if problems else "structure: no limit exceeded")
        return min(len(problems), 1)
    files = trace_instruct_step()
    print("\n".join(files), file=sys.stderr)
    print(json.dumps({"files_per_step": len(files), **measure(given.root)}))
    return 0


def check(root: Path, exceptions: Mapping[str, str] = EXCEPTIONS) -> list[str]:
    """Return a message for each violation, except the allowed exceptions.

    Exceptions that are not needed or that have no reason also result in a message.
    """
    violations = [
        *_long_functions(root),
        *_ruff_violations(root),
        *_long_files(root),
        *_duplicate_name_violations(root),
        *_import_cycle_violations(root),
    ]
    problems = [f"{each.location}: {each.message}" for each in violations if each.key not in exceptions]
    unused = exceptions.keys() - {each.key for each in violations}
    problems += [f"tools/structure.py: {key} is within the limits; remove its exception" for key in sorted(unused)]
    problems += [f"tools/structure.py: {key} needs a reason" for key, why in exceptions.items() if not why.strip()]
    if len(exceptions) > MAX_EXCEPTIONS:
        problems.append(f"tools/structure.py: {len(exceptions)} exceptions, max {MAX_EXCEPTIONS}")
    return problems


def measure(root: Path) -> dict[str, int]:
    """Return the static measurements of `make bench-structure`."""
    families = family_lines(root)
    code = {path: code_lines(path) for path in sorted((root / PACKAGE).rglob("*.py"))}
    ruff = [result["code"] for result in _ruff(root)]
    return {
        "code_lines": sum(code.values()),
        "family_code_lines": sum(code[path] for path in families),
        "longest_command": max(map(_line_count, (root / PACKAGE / "commands").glob("*.py")), default=0),
        "functions_over_60": sum(each.lines > MAX_FUNCTION_LINES for each in functions(root)),
        "functions_over_8_parameters": ruff.count(_TOO_MANY_PARAMETERS),
        "public_names_twice": len(duplicate_names(root)),
        "families": len(families),
        "longest_family": max(families.values(), default=0),
    }


def functions(root: Path) -> Iterator[Function]:
    """Yield all functions and methods of the package, including nested ones."""

    def walk(node: ast.AST, prefix: str, path: str) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    lines = (child.end_lineno or child.lineno) - child.lineno + 1
                    yield Function(path, name, child.lineno, lines)
                yield from walk(child, f"{name}.", path)
            else:
                yield from walk(child, prefix, path)

    for path, tree in _modules(root):
        yield from walk(tree, "", path)


def duplicate_names(root: Path) -> dict[str, list[str]]:
    """Return the public functions and classes that several modules define, as {name: [FILE:LINE, ...]}."""
    locations: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for path, tree in _modules(root):
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                locations[node.name].setdefault(path, f"{path}:{node.lineno}")
    public = {name: places for name, places in locations.items() if not name.startswith("_")}
    return {
        name: list(places.values())
        for name, places in sorted(public.items())
        if len(places) > 1 and name not in CONVENTIONAL_NAMES
    }


def code_lines(path: Path) -> int:
    """Return the number of lines of code in a file. Blank lines, comments and docstrings do not count."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NON_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    text = source.splitlines()
    return sum(bool(text[number - 1].strip()) for number in lines)


def family_lines(root: Path) -> dict[Path, int]:
    """Return the number of lines of each file that defines a model family."""
    folder = root / PACKAGE / "model" / "families"
    names = sorted(path for path in folder.glob("*.py") if path.stem not in ("__init__", "base"))
    return {path: _line_count(path) for path in names}


def trace_instruct_step() -> list[str]:
    """Return the files of the package that execute code during one training step of `groundup finetune instruct`.

    A tiny random model is fine-tuned on real text. Compilation, evaluation and checkpoints are disabled. A training
    step begins at the end of the previous optimizer step, and code in all threads counts. The result describes the step
    with the median number of files.
    """
    from groundup.commands.finetune_instruct import FinetuneInstructConfig, run
    from groundup.core.config import load
    from groundup.core.console import Console
    from groundup.optim import Optimizer

    steps: list[set[str]] = []
    running: set[str] = set()
    optimizer_step = Optimizer.step.__code__

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            running.add(frame.f_code.co_filename)
        elif event == "return" and frame.f_code is optimizer_step:
            steps.append(set(running))
            running.clear()

    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "log.txt").open("w", encoding="utf-8") as log:
        settings = load(FinetuneInstructConfig, _instruct_settings(Path(scratch)))
        threading.setprofile(profile)
        sys.setprofile(profile)
        try:
            run(settings, console=Console(stream=log))
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    package = str((ROOT / PACKAGE).resolve())
    files = [sorted({str(Path(name).resolve()) for name in step if name.startswith(package)}) for step in steps[3:-1]]
    counts = [len(each) for each in files]
    median = files[counts.index(statistics.median_low(counts))]
    return [str(Path(name).relative_to(package)) for name in median]


def _instruct_settings(scratch: Path) -> dict[str, Any]:
    """Write a model directory and a table of questions, and return the settings of a run that uses both."""
    from pydoc_data.topics import topics

    import torch

    from groundup.hub import save_model
    from groundup.model import ModelConfig, Transformer
    from groundup.tokenizer import train_tokenizer

    texts = [text for _, text in sorted(topics.items())]
    tokenizer = train_tokenizer(texts, 1024)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"family": "qwen3", "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8}
    sizes = {"ffn_dim": 64, "context_length": 128, "tie_embeddings": False, "vocab_size": tokenizer.vocab_size}
    model = Transformer(ModelConfig(**shape | sizes))
    directory = scratch / "base"
    save_model(directory, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    words = [paragraph.split() for text in texts for paragraph in text.split("\n\n")]
    pairs = dict.fromkeys((" ".join(each[:6]), " ".join(each[6:12])) for each in words if len(each) > 12)
    rows = [json.dumps({"question": question, "answer": answer}) for question, answer in list(pairs)[:240]]
    table = scratch / "pairs.jsonl"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    paths = {"data": str(table), "model": str(directory), "out": str(scratch / "chat")}
    off = {"compile": False, "num_evaluations": 0, "checkpoint_seconds": 1e9}
    return paths | off | {"threads": 1, "num_epochs": 2.0}


def _long_functions(root: Path) -> Iterator[Violation]:
    for each in functions(root):
        if each.lines > MAX_FUNCTION_LINES:
            message = f"{each.name} has {each.lines} lines, max {MAX_FUNCTION_LINES}"
            yield Violation(each.key, f"{each.path}:{each.line}", message)


def _ruff_violations(root: Path) -> Iterator[Violation]:
    by_location = {(each.path, each.line): each for each in functions(root)}
    for result in _ruff(root):
        path, line = _relative(root, Path(result["filename"])), result["location"]["row"]
        function = by_location[path, line]
        yield Violation(function.key, f"{path}:{line}", f"{function.name}: {result['message']}")


def _ruff(root: Path) -> list[dict[str, Any]]:
    """Return Ruff's results for the number of parameters and the complexity. `noqa` comments are ignored."""
    rules = ["--select", f"{_TOO_MANY_PARAMETERS},{_TOO_COMPLEX}", "--ignore-noqa", "--output-format", "json"]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(root / PACKAGE)]
    done = subprocess.run([sys.executable, "-m", "ruff", "check", *rules, *options], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"ruff failed: {done.stderr}")
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def _long_files(root: Path) -> Iterator[Violation]:
    for path in sorted(path for folder in CHECKED_DIRECTORIES for path in (root / folder).rglob("*.py")):
        name, lines = _relative(root, path), _line_count(path)
        limit = MAX_COMMAND_LINES if path.parent == root / PACKAGE / "commands" else MAX_FILE_LINES
        if lines > limit:
            yield Violation(name, f"{name}:{lines}", f"{lines} lines, max {limit}")


def _duplicate_name_violations(root: Path) -> Iterator[Violation]:
    duplicates = duplicate_names(root)
    if len(duplicates) > MAX_DUPLICATE_NAMES:
        for name, places in duplicates.items():
            others = ", ".join(places[1:])
            message = (
                f"{name} is also defined in {others}; {len(duplicates)} duplicate names, max {MAX_DUPLICATE_NAMES}"
            )
            yield Violation(name, places[0], message)


def _import_cycle_violations(root: Path) -> Iterator[Violation]:
    """Yield a violation for each group of modules that import each other, also in functions or only for types."""
    paths = {_module_name(path): (path, tree) for path, tree in _modules(root)}
    imports = {name: set(_imports(tree, paths)) - {name} for name, (_, tree) in paths.items()}
    reachable = {name: _reachable(name, imports) for name in paths}
    groups = {frozenset(each for each in reachable[name] if name in reachable[each]) for name in paths}
    for first, *others in sorted(map(sorted, filter(None, groups))):
        path, _ = paths[first]
        yield Violation(path, f"{path}:1", f"imports itself through {', '.join(others)}")


def _module_name(path: str) -> str:
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(tree: ast.Module, modules: Collection[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            names = (f"{start}{alias.name}" for alias in node.names)
            yield from (each for name in names if (each := name if name in modules else start[:-1]) in modules)


def _reachable(name: str, imports: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = [name]
    while pending:
        new = imports[pending.pop()] - found
        found |= new
        pending += new
    return found


def _modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((root / PACKAGE).rglob("*.py")):
        yield _relative(root, path), ast.parse(path.read_text(encoding="utf-8"))


def _line_count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _relative(root: Path, path: Path) -> str:
    return path.resolve().relative_to(root.resolve()).as_posix()


if __name__ == "__main__":
    sys.exit(main())
