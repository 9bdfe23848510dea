"""Markdown tables, as a Markdown parser reads them."""

from __future__ import annotations

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from groundup.core.markdown import markdown_table


def cells_of(page: str) -> list[list[str]]:
    """Return the cells of all tables of a page."""
    rows = re.findall(r"<tr>(.*?)</tr>", MarkdownIt().enable("table").render(page), re.DOTALL)
    return [[unescape(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows]


@pytest.mark.parametrize(("cell", "shown"), [("a|b", "a|b"), (r"a\|b", r"a\|b"), ("|", "|"), ("a\nb", "a b")])
def test_a_cell_with_pipes_or_lines_stays_one_cell(cell: str, shown: str) -> None:
    assert cells_of(markdown_table(("x", "y"), [(cell, "1")])) == [["x", "y"], [shown, "1"]]


def test_columns_are_aligned() -> None:
    rule = markdown_table(("a", "b", "c"), [("1", "2", "3")]).splitlines()[1]
    assert rule == "| --- | --- | --: |"
    assert markdown_table(("a", "b", "c"), [("1", "2", "3")], "rll").splitlines()[1] == "| --: | --- | --- |"
    assert markdown_table(("a",), []) == ""
