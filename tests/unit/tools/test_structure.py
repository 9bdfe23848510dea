"""tools/structure.py reports each kind of violation, and nothing within the limits."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "structure.py"


@pytest.fixture(scope="module")
def structure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("structure", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["structure"] = module  # needed by dataclasses
    spec.loader.exec_module(module)
    return module


def package(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "src" / "groundup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def function(lines: int, head: str = "def long():", indent: str = "") -> str:
    return "\n".join([indent + head, *[f"{indent}    x = 1"] * (lines - 1)]) + "\n"


def test_a_function_of_60_lines_passes_and_one_of_61_does_not(structure: ModuleType, tmp_path: Path) -> None:
    method = "class A:\n    @staticmethod\n" + function(61, "def m():", "    ")
    root = package(tmp_path, {"core/a.py": function(60), "core/b.py": method})
    assert structure.check(root, {}) == ["src/groundup/core/b.py:3: A.m has 61 lines, max 60"]


def test_parameters_and_complexity_ignore_self_and_noqa(structure: ModuleType, tmp_path: Path) -> None:
    many = "class A:\n    def m(self, a, b, c, d, e, f, g, h): pass\n    def n(self, a, b, c, d, e, f, g, h, i): pass"
    branches = "def f(x):  # noqa: C901\n" + "".join(f"    if x == {i}:\n        x += 1\n" for i in range(20))
    root = package(tmp_path, {"core/a.py": many + "  # noqa: PLR0913\n", "core/b.py": branches})
    problems = structure.check(root, {})
    assert [problem.partition(": ")[0] for problem in problems] == [
        "src/groundup/core/a.py:3",
        "src/groundup/core/b.py:1",
    ]
    assert "A.n: Too many arguments in function definition (9 > 8)" in problems[0]
    assert "f: `f` is too complex (21 > 20)" in problems[1]


def test_commands_are_shorter_than_other_files(structure: ModuleType, tmp_path: Path) -> None:
    lines = "x = 1\n"
    files = {"commands/a.py": lines * 151, "commands/b.py": lines * 150, "core/c.py": lines * 601, "d.py": lines * 600}
    assert structure.check(package(tmp_path, files), {}) == [
        "src/groundup/commands/a.py:151: 151 lines, max 150",
        "src/groundup/core/c.py:601: 601 lines, max 600",
    ]


def test_five_duplicate_public_names_are_allowed(structure: ModuleType, tmp_path: Path) -> None:
    def names(count: int) -> str:
        return "".join(f"def name_{i}(): ...\n" for i in range(count)) + "def run(): ...\nclass _Private: ...\n"

    root = package(tmp_path, {"a.py": names(5), "b.py": names(5)})
    assert structure.check(root, {}) == []
    assert len(structure.duplicate_names(root)) == 5
    package(tmp_path, {"a.py": names(6), "b.py": names(6)})
    problems = structure.check(root, {})
    assert len(problems) == 6
    assert problems[5].startswith(
        "src/groundup/a.py:6: name_5 is also defined in src/groundup/b.py:6; 6 duplicate names"
    )


def test_modules_that_import_each_other_are_reported(structure: ModuleType, tmp_path: Path) -> None:
    """Imports in functions and under TYPE_CHECKING hid circles from the interpreter, and from readers."""
    files = {
        "a/__init__.py": "from groundup.a.first import x",
        "a/first.py": "if TYPE_CHECKING:\n    from groundup.a import second",
        "a/second.py": "import groundup.b",
        "b.py": "def f():\n    from groundup.a.first import x",
        "c.py": "from groundup.a import first\nimport groundup.b",
    }
    problem = "src/groundup/a/first.py:1: imports itself through groundup.a.second, groundup.b"
    assert structure.check(package(tmp_path, files), {}) == [problem]


def test_an_exception_needs_a_reason_and_a_violation(structure: ModuleType, tmp_path: Path) -> None:
    root = package(tmp_path, {"a.py": function(61)})
    assert structure.check(root, {"src/groundup/a.py::long": "a table of cases"}) == []
    assert len(structure.check(root, {"src/groundup/a.py::long": " "})) == 1
    unused = structure.check(root, {"src/groundup/a.py::long": "a table of cases", "src/groundup/b.py": "gone"})
    assert unused == ["tools/structure.py: src/groundup/b.py is within the limits; remove its exception"]


def test_code_lines_exclude_blanks_comments_and_docstrings(structure: ModuleType, tmp_path: Path) -> None:
    text = '"""Module.\n\nTwo paragraphs."""\n\n# comment\nx = """a\n\nb"""  # trailing\n\n\n'
    path = tmp_path / "a.py"
    path.write_text(text + 'def f():\n    """F."""\n    return (\n        1,\n        # inside\n        2,\n    )\n')
    assert structure.code_lines(path) == 7  # x has two non-blank lines, f has five
