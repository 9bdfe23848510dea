"""What an element's tag, class, id and role say about it: navigation, advertisement, comments, and so on."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# In any part of a name, in the languages whose words turn up in the names of classes.
_ALWAYS = re.compile(
    r"com+ent|kommentar|disqus|livefyre|respond\b|replies|feedback|shar(?:e|ing)|partage|teilen|social"
    r"|relat(?:ed|ion)|relacionad|verwandt|recommend|popular|trending|most-?read|more-?(?:news|stories|from)"
    r"|read-?more|also-?(?:like|read)|newsletter|subscri|sign-?(?:in|up)|log-?in|cookie|consent|popup|modal"
    r"|breadcrumb|side-?bar|masthead|footer|foot\b|navigation|navbox|catlinks|mw-jump|pagination|pager|tool-?(?:bar|box)"
    r"|promo|sponsor|advert|publici[dt]|werbung|anzeige|outbrain|taboola|widget|banner|teaser|carousel|slideshow|gallery"
    r"|caption|byline|tag-?list|tag-?cloud|infobox|metadata|ambox|quiz",
    re.IGNORECASE,
)
# Only as a word of a name, and only where nothing else in the name speaks for content.
_DOUBTFUL = re.compile(
    r"(?:^|[\s_-])(?:nav|menu|ads?|toc|tags?|date|links?|header|navbar|topnav|bottom|external|rel|aside|tools?|print|rating"
    r"|author|bio|skip|hidden|meta|credits?|copyright|disclaimer|tagline|dateline|timestamp|pub-?date|search|poll)(?:$|[\s_-])",
    re.IGNORECASE,
)
_CONTENT = re.compile(r"article|body|content|entry|main|post|story|text", re.IGNORECASE)
_COMMENTS = re.compile(r"com+ent|kommentar|disqus|livefyre|respond|replies|feedback", re.IGNORECASE)
_NOISE = re.compile(r"editsection|headerlink|permalink|visually-?hidden|sr-only|screen-reader", re.IGNORECASE)
_TAGS = frozenset(("address", "aside", "figcaption", "header"))
_ROLES = frozenset(
    ("alert", "banner", "complementary", "contentinfo", "dialog", "menu", "menubar", "navigation", "search", "toolbar")
)
_LONGEST = 1000  # characters of names that are looked at
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def is_boilerplate(element: Any, tag: str, names: str) -> bool:
    """Whether a block element looks like something beside the main text; `names` is its class."""
    if tag in _TAGS or element.get("role") in _ROLES:
        return True
    if element.get("hidden") is not None or element.get("aria-hidden") == "true":
        return True
    if (style := element.get("style")) and _HIDDEN.search(style):
        return True
    if tag in ("main", "article"):
        return False
    if identifier := element.get("id"):
        names = f"{names} {identifier}"
    return bool(names) and _named_boilerplate(names[:_LONGEST])


@lru_cache(maxsize=4096)  # a site's pages share their names
def _named_boilerplate(names: str) -> bool:
    return _ALWAYS.search(names) is not None or (_DOUBTFUL.search(names) is not None and _CONTENT.search(names) is None)


def is_comments(element: Any, names: str) -> bool:
    """Whether a block element's names say that it holds what readers wrote."""
    return _COMMENTS.search(f"{names} {element.get('id') or ''}"[:_LONGEST]) is not None


@lru_cache(maxsize=4096)
def _named_noise(names: str) -> bool:
    return _NOISE.search(names) is not None


def is_noise(tag: str, names: str) -> bool:
    """Whether an inline element is no part of its sentence: an edit link, a footnote's number."""
    return _named_noise(names[:_LONGEST]) or (tag == "sup" and "reference" in names)
