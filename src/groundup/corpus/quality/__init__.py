"""Quality filters: published filter rules, a classifier trained on the user's examples, and a perplexity filter."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.core.config import Config, setting, unknown_name
from groundup.corpus.quality.c4 import C4
from groundup.corpus.quality.fineweb import FineWeb
from groundup.corpus.quality.gopher import GopherQuality, GopherRepetition
from groundup.corpus.steps import Step

__all__ = ["C4", "FilterSettings", "FineWeb", "GopherQuality", "GopherRepetition", "filter_steps"]


class FilterSettings(Config):
    """The filters that a recipe can select, with their thresholds. The default thresholds are the published values.

    All filters were designed for web pages. The FineWeb dataset was filtered with gopher_repetition, gopher_quality, c4
    (with `terminal_punctuation` off) and fineweb, in this order. `c4` drops code. `gopher_quality` and `fineweb` drop
    verse, dialogue, tables and lists.
    """

    gopher_repetition: GopherRepetition = setting(GopherRepetition(), help="drop documents with much repeated text")
    gopher_quality: GopherQuality = setting(GopherQuality(), help="drop documents that are not running text")
    c4: C4 = setting(C4(), help="remove lines that are not sentences, and drop documents with too few sentences")
    fineweb: FineWeb = setting(FineWeb(), help="drop documents that consist of lists, menus or repeated lines")


def filter_steps(names: Sequence[str], settings: FilterSettings | None = None) -> dict[str, Step]:
    """Return the filters with the given names, in the given order.

    Args:
        names: Names of filters, which are the fields of `FilterSettings`.
        settings: The filters with their thresholds. By default, the published thresholds are used.

    Raises:
        ConfigError: A name is not the name of a filter.
    """
    settings = settings or FilterSettings()
    known = list(FilterSettings.model_fields)
    for name in names:
        if name not in known:
            raise unknown_name("filter", name, known)
    return {name: getattr(settings, name) for name in names}
