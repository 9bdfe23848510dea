"""Whole pages that the Studio shows in a frame: a data card, a report, what was trained."""

from __future__ import annotations

from collections.abc import Callable

from groundup.core.errors import DataError
from groundup.corpus import read_card
from groundup.report import read_run, render, render_card
from groundup.report.page import content_policy
from groundup.studio.home import Home

# A frame of an origin of its own: it reaches neither the Studio nor its server.
_FRAMED = "frame-ancestors 'self'; sandbox"
XRAY = "xray.html"


def framed(home: Home, kind: str, place: str) -> tuple[str, str]:
    """A page, and the policy that it is shown under.

    Args:
        kind: "card" of a corpus, "report" of a run, "xray" of a stage that tunes.

    Raises:
        DataError: there is none.
        FormatError: what it is made from is damaged.
    """
    makers: dict[str, Callable[[], tuple[str, str]]] = {
        "card": lambda: (render_card(read_card(home.stage(place).directory)), content_policy(script=True)),
        "report": lambda: (render(read_run(home.run(place).directory)), content_policy(script=True)),
        "xray": lambda: (_file(home, place), "default-src 'none'; style-src 'unsafe-inline'"),
    }
    if kind not in makers:
        raise DataError(f"{kind[:80]}: no such page", rule=f"there are {', '.join(makers)}", fix="Ask for one of them.")
    page, policy = makers[kind]()
    scripts = " allow-scripts" if "script-src" in policy else ""
    return page, f"{policy}; {_FRAMED}{scripts}"


def _file(home: Home, place: str) -> str:
    path = home.stage(place).directory / XRAY
    if not path.is_file():
        raise DataError(f"{place[:80]}: no {XRAY}", rule="a stage that tunes leaves one", fix="Tune a model first.")
    return path.read_text(encoding="utf-8", errors="replace")
