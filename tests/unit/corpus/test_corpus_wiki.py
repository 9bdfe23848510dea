"""MediaWiki dumps and wikitext."""

from __future__ import annotations

import bz2
import io
from functools import partial

import pytest

from cpu_time import cpu_seconds
from groundup.corpus.formats import Extracted, extract
from groundup.corpus.formats.wiki import plain_text
from groundup.corpus.records import RecordOptions
from groundup.corpus.sources import Item

UNSEEN = frozenset({"file", "image", "category", "datei"})
DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename><base>https://de.wikipedia.org/wiki/Hauptseite</base>
    <namespaces>
      <namespace key="0" case="first-letter" /><namespace key="1" case="first-letter">Diskussion</namespace>
      <namespace key="6" case="first-letter">Datei</namespace>
    </namespaces>
  </siteinfo>
  %s
</mediawiki>"""


def page(title: str, text: str, namespace: int = 0, extra: str = "") -> str:
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>1</id>{extra}<revision><timestamp>2020-01-02T03:04:05Z"
        f"</timestamp><model>wikitext</model><text>{text}</text></revision></page>"
    )


def read(data: bytes, path: str = "dewiki.xml") -> list[Extracted | str]:
    found = extract(Item(path, len(data)), partial(io.BytesIO, data), RecordOptions(), None)
    return [each if isinstance(each, Extracted) else f"{each.reason}!" for each in found]


def test_a_dump() -> None:
    pages = [
        page("Ada Lovelace", "[[Datei:Ada.jpg|mini|Bild]] '''Ada''' schrieb [[Programm|Programme]]."),
        page("Lovelace", "#WEITERLEITUNG [[Ada Lovelace]]", extra='<redirect title="Ada Lovelace" />'),
        page("Diskussion:Ada", "Ist das so?", 1),
    ]
    streams = [bz2.compress(part.encode()) for part in (DUMP % "".join(pages)).partition("<page>")]  # multistream
    article, *rest = read(b"".join(streams), "no-suffix")
    assert article == Extracted(
        "no-suffix#Ada Lovelace",
        "Ada Lovelace\n\nAda schrieb Programme.",
        url="https://de.wikipedia.org/wiki/Ada_Lovelace",
        date="2020-01-02T03:04:05Z",
    )
    assert rest == ["redirect!", "not an article: Diskussion!"]


def test_a_truncated_dump_keeps_the_articles_before() -> None:
    data = (DUMP % (page("One", "First.") * 3)).encode()
    found = read(data[:-300])
    assert isinstance(found[0], Extracted)
    assert found[-1] == "damaged!"


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE m [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE m [<!ENTITY % p "x"> %p;]>',
    ],
)
def test_declared_entities_are_refused(doctype: str) -> None:
    """Entities can expand to gigabytes or read local files."""
    assert read((doctype + DUMP % page("One", "&b;&x;")).encode()) == ["damaged!"]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("It is {{convert|5|km|mi|abbr=on}} from {{lang|fr|[[Paris]]}}.", "It is 5 km from Paris."),
        ("'''A''' (pronounced {{IPA|x}}; born 1900) was.", "A (pronounced; born 1900) was."),
        ("A ({{lang-ar|{{big|ب}}}}) b.", "A (ب) b."),
        ("One.<ref name=a>Not [[this]] {{one}}.</ref> Two.<ref name=a />", "One. Two."),
        ("{{Infobox\n| a = {{nested|x}}\n| b = [[link]]\n}}\nText.", "Text."),
        ("{| class=wikitable\n! A\n|-\n| 1 || {{x|}}\n{|\n| inner\n|}\n|}\nAfter.", "After."),
        ("[[File:A.jpg|thumb|A [[caption]] of it]]Text [[Category:Texts]]", "Text"),
        ("[[de:Text]][[:Category:Shown]] and [[#Part|part]]", "Category:Shown and part"),
        ("See [https://example.org the site] and [https://example.org].", "See the site and."),
        ("== Head ==\nText.\n\n== References ==\n{{reflist}}\n== Links ==\n* [http://a.example A]\n", "Head\n\nText."),
        ("* one\n** two\n# first\n# second\n", "- one\n  - two\n1. first\n2. second"),
        ("<nowiki>[[not a link]]</nowiki> &amp; <math>x_{i}</math>", "[[not a link]] & $x_{i}$"),
        ("a<!-- hidden [[ -->b &nbsp; c", "ab c"),
        ("{{{{{a|b}}}|c}} {{unclosed [[and]] text", "{{unclosed and text".replace("{{", "")),
        ("Rock {{'}}n{{'}} roll {{ndash}} since {{circa|1950}}", "Rock 'n' roll – since c. 1950"),
    ],
)
def test_wikitext(wikitext: str, text: str) -> None:
    assert plain_text(wikitext, UNSEEN) == text


@pytest.mark.parametrize(
    "unit", ["{{", "[[", "{{nowrap|x", "{|\n", "<ref>", "[http://a ", "{{[[", "=a", "'", "(;", "<a ", "*", "}}", "]]"]
)
def test_unclosed_brackets_take_linear_time(unit: str) -> None:
    """Parsers with backtracking take quadratic time: hours for one megabyte."""
    texts = (unit * count + "text" for count in (1_000, 20_000))
    few, many = (cpu_seconds(partial(plain_text, text, UNSEEN)) for text in texts)
    # 20 times the length; quadratic time would be 400 times as long.
    assert many < 100 * max(few, 0.01)
