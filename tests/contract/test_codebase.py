"""The codebase follows the conventions of docs/architecture.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_CHARACTERS = 500_000
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file that git tracks."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("the tests do not run in a git checkout")
    for name in done.stdout.splitlines():
        path = ROOT / name
        if path.is_file():
            yield name, path.read_bytes().decode("utf-8", "replace")


def test_no_tracked_file_is_large() -> None:
    """Wheels of 220 MB were once committed with `git add`; every clone has to download such files forever."""
    large = [name for name, text in tracked_texts() if len(text) > MAX_CHARACTERS]
    assert not large


def test_packages_import_only_from_layers_below() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_functions_files_and_names_are_within_the_limits() -> None:
    tool = ROOT / "tools" / "structure.py"
    done = subprocess.run([sys.executable, tool, "check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def forbidden_calls(tree: ast.AST) -> Iterator[str]:
    """Yield calls that can execute code from data: pickle and similar modules, `eval` and `exec`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            yield from (
                n for n in names if n.split(".")[0] in {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
            )
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in {"eval", "exec", "compile", "__import__", "torch.load", "yaml.load", "pd.read_pickle"}:
                yield name
            if name in {"np.load", "numpy.load"} and options.get("allow_pickle") != "False":
                yield f"{name} without allow_pickle=False"
            if options.get("trust_remote_code") == "True" or options.get("allow_pickle") == "True":
                yield f"{name} that trusts its file"
            if options.get("shell") == "True" or name == "os.system":
                yield f"{name} through a shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_data_is_run_as_code(path: Path) -> None:
    """A corpus, checkpoint or model from an untrusted source must not be able to execute code."""
    assert list(forbidden_calls(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_scan_finds_forbidden_calls() -> None:
    code = "import pickle\nfrom torch import x\ntorch.load(f)\nnp.load(f)\nnp.load(f, allow_pickle=False)"
    code += "\neval(x)"
    assert list(forbidden_calls(ast.parse(code))) == [
        "pickle",
        "torch.load",
        "np.load without allow_pickle=False",
        "eval",
    ]


def test_src_has_no_stubs() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError|placeholder(?!\s+tokens?))\b")
    found = [f"{p.relative_to(ROOT)}: {m[0]}" for p in SOURCES if (m := marks.search(p.read_text(encoding="utf-8")))]
    assert found == []


def test_no_file_names_one_machine_or_one_registry() -> None:
    """The settings of the user's pip and npm choose the package registry, so that mirrors can be used."""
    hosts = [
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "npmjs" + ".",
        "download.pytorch" + ".",
        "hugging" + "face.co",
        "deb.debian" + ".",
    ]
    paths = re.compile(r"(?<![\w.~-])/(?:work|root|farm|home/\w+)/")
    found = []
    for name, text in tracked_texts():
        found += [f"{name}: {host}" for host in hosts if host in text]
        found += [f"{name}: {match[0]}" for match in paths.finditer(text)]
    assert found == []


def test_text_files_end_with_a_newline_and_have_no_merge_conflicts() -> None:
    for name, text in tracked_texts():
        if text and "\x00" not in text:
            assert text.endswith("\n"), name
            assert not re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE), name


def test_the_usual_project_files_exist() -> None:
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile"):
        assert (ROOT / name).stat().st_size > 0, name
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_commands_in_the_documentation_exist() -> None:
    from groundup.cli.commands import COMMANDS

    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        blocks = re.findall(r"```(?:sh|console)?\n(.*?)```", text, re.DOTALL)
        commands = re.findall(r"^\s*(?:\$ )?groundup (\w+)", "\n".join(blocks), re.MULTILINE)
        targets = re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", "\n".join(blocks), re.MULTILINE)
        assert set(commands) <= {command.split()[0] for command in COMMANDS}, name
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets), name
