"""Dumps of MediaWiki (Wikipedia and its like): one text an article."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import quote

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.wikitext import plain_text
from groundup.corpus.formats.xml import elements

_REDIRECT = re.compile(r"\s*#\s*\w{1,30}\s*:?\s*\[\[[^\]\n]{1,300}\]\]", re.IGNORECASE)
_FILES, _CATEGORIES, _MEDIA = 6, 14, -2  # numbers of namespaces; their names are in the wiki's language


@dataclass(slots=True)
class _Page:
    title: str = ""
    namespace: int = 0
    is_redirect: bool = False
    model: str = "wikitext"
    text: str = ""
    date: str = ""


@dataclass(slots=True)
class _Site:
    base: str = ""
    namespaces: dict[int, str] = field(default_factory=dict)

    @property
    def unseen(self) -> frozenset[str]:
        """Prefixes, in lower case, of links that show no text: files and categories."""
        local = (self.namespaces.get(number, "") for number in (_FILES, _CATEGORIES, _MEDIA))
        return frozenset({"file", "image", "category", "media", *(name.lower() for name in local)})

    def url(self, title: str) -> str:
        """The address of an article."""
        return f"{self.base.rpartition('/')[0]}/{quote(title.replace(' ', '_'), safe='/:,()')}" if self.base else ""

    def namespace_of(self, title: str) -> int:
        """By its title, for dumps (before 2012) that do not say it."""
        prefix = title.partition(":")[0]
        return next((number for number, name in self.namespaces.items() if name and name == prefix), 0)


def read_wiki(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """The articles of an XML dump: the last revision of each, below its title.

    Redirects, and pages that are no articles (talk, users, templates, categories), are named and left out.
    """
    site = _Site()
    for page in _pages(stream, site):
        origin = f"{path}#{page.title}"
        if page.namespace != 0:
            kind = site.namespaces.get(page.namespace, "") or f"namespace {page.namespace}"
            yield Unreadable(origin, f"no article: {kind}")
        elif page.is_redirect or _REDIRECT.match(page.text):
            yield Unreadable(origin, "redirect")
        elif page.model != "wikitext":
            yield Unreadable(origin, f"no article: {page.model}")
        elif text := plain_text(page.text, site.unseen):
            yield Extracted(origin, f"{page.title}\n\n{text}", url=site.url(page.title), date=page.date)
        else:
            yield Unreadable(origin, "no text", page.text[:200])


def _pages(stream: BinaryIO, site: _Site) -> Iterator[_Page]:
    """Each page of a dump."""
    page = _Page()
    has_namespace = False
    for event, name, element in elements(stream):
        if event == "start":
            if name == "page":
                page, has_namespace = _Page(), False
            elif name == "redirect":
                page.is_redirect = True
            continue
        text = element.text or ""
        if name == "title":
            page.title = text
        elif name == "ns" and text.lstrip("-").isdigit():
            page.namespace, has_namespace = int(text), True
        elif name == "model":
            page.model = text
        elif name == "timestamp":
            page.date = text
        elif name == "text":
            page.text = text
        elif name == "base":
            site.base = text
        elif name == "namespace":
            key = element.get("key", "")
            if key.lstrip("-").isdigit():
                site.namespaces[int(key)] = text
        elif name == "page":
            if not has_namespace:
                page.namespace = site.namespace_of(page.title)
            yield page
