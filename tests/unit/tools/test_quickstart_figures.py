"""README.md and the documentation show the figures of one quickstart run."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "quickstart_figures.py"
spec = importlib.util.spec_from_file_location("quickstart_figures", TOOL)
assert spec is not None and spec.loader is not None
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture(scope="module")
def figures() -> dict[str, str]:
    figures: dict[str, str] = json.loads(tool.FIGURES.read_text(encoding="utf-8"))
    return figures


def test_pages_show_the_recorded_figures(figures: dict[str, str]) -> None:
    shown = 0
    for path in tool.pages():
        text = path.read_text(encoding="utf-8")
        assert tool.filled(text, figures) == text, f"run python tools/quickstart_figures.py fill: {path.name}"
        shown += text.count("<!-- quickstart ")
    assert shown > 10


def test_all_markers_are_closed() -> None:
    for path in tool.pages():
        text = path.read_text(encoding="utf-8")
        assert (
            text.count("<!-- quickstart ")
            == len(re.findall(r"<!-- quickstart [\w.]+ -->", text))
            == text.count("<!-- end -->")
        )


def test_an_unknown_figure_is_an_error() -> None:
    with pytest.raises(KeyError, match="missing"):
        tool.filled("<!-- quickstart missing -->1<!-- end -->", {})


def test_text_outside_of_markers_is_kept() -> None:
    page = "a <!-- quickstart x -->old<!-- end --> b <!-- quickstart y -->\nold\n<!-- end --> c"
    assert (
        tool.filled(page, {"x": "1", "y": "2"})
        == "a <!-- quickstart x -->1<!-- end --> b <!-- quickstart y -->2<!-- end --> c"
    )
