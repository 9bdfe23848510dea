"""Which documents are good enough: published rules by name, a classifier of the user's own, a model's opinion."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.core.config import Config, setting, unknown_key
from groundup.corpus.quality.c4 import C4
from groundup.corpus.quality.fineweb import FineWeb
from groundup.corpus.quality.gopher import GopherQuality, GopherRepetition
from groundup.corpus.steps import Step

__all__ = ["C4", "FilterRules", "FineWeb", "GopherQuality", "GopherRepetition", "filter_steps"]


class FilterRules(Config):
    """The filters that a recipe may name, each with its thresholds; those that are not given are the published ones.

    All are rules for web pages. FineWeb's order is gopher_repetition, gopher_quality, c4 (without `end_mark`),
    fineweb. `c4` drops code, `gopher_quality` and `fineweb` drop verse, dialogue, tables and lists.
    """

    gopher_repetition: GopherRepetition = setting(GopherRepetition(), help="documents that repeat themselves")
    gopher_quality: GopherQuality = setting(GopherQuality(), help="words and lines that are no running text")
    c4: C4 = setting(C4(), help="lines that are no sentences, and documents with few sentences")
    fineweb: FineWeb = setting(FineWeb(), help="lists, menus and repeated lines")


def filter_steps(names: Sequence[str], rules: FilterRules | None = None) -> dict[str, Step]:
    """The filters of these names, in this order.

    Raises:
        ConfigError: no filter has that name; the nearest one is told.
    """
    rules = rules or FilterRules()
    known = list(FilterRules.model_fields)
    for name in names:
        if name not in known:
            raise unknown_key(f"filters: {name}", name, known, "filter")
    return {name: getattr(rules, name) for name in names}
