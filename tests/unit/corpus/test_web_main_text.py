"""Main-text extraction: the article is kept, boilerplate is removed, and the time is linear."""

from __future__ import annotations

import time

import pytest

from groundup.corpus.html import decode, main_text

ARTICLE = """
<h1>Harbour reopens</h1>
<p>The harbour of the old town was opened again on Monday, a year after the storm that broke its wall.</p>
<p>"We did not think that it could be done in a year," said Ana Ruiz, who runs the market on the quay.</p>
<h2>What it cost</h2>
<p>The town paid 4.1 million, a third of it from a fund, and rebuilt the wall higher than it had been.</p>
<ul><li>Stone came from the quarry at Vell, forty miles inland.</li><li>The lamps are the old ones, repaired.</li></ul>
"""
MENU = (
    "<ul>" + "".join(f'<li><a href="/{name}">{name}</a></li>' for name in ("Home", "News", "Sport", "Shop")) + "</ul>"
)
COMMENTS = '<div id="comments"><h3>3 comments</h3>' + "".join(
    f"<div class='comment'><b>{name}</b><p>I have walked there every week, and I like it a lot.</p></div>"
    for name in ("pere", "tom", "li")
)


def page(body: str) -> str:
    return f"<!doctype html><html><head><title>Harbour | The Quay</title></head><body>{body}</body></html>"


@pytest.mark.parametrize("profile", ["fast", "best"])
def test_the_article_is_kept_and_boilerplate_is_removed(profile: str) -> None:
    text = main_text(
        page(
            f"<div class='header'>{MENU}</div><nav>{MENU}</nav><div id='wrap'><div class='story-body'>{ARTICLE}</div>"
            f"<div class='sidebar'><p>Weather for tomorrow: rain, wind from the west, nine degrees.</p></div>"
            f"{COMMENTS}</div></div><div id='footer'><p>© 2024 The Quay. All rights reserved, everywhere.</p></div>"
        ),
        profile=profile,  # type: ignore[arg-type]
    )
    assert text == "\n\n".join(
        [
            "The harbour of the old town was opened again on Monday, a year after the storm that broke its wall.",
            '"We did not think that it could be done in a year," said Ana Ruiz, who runs the market on the quay.',
            "What it cost",
            "The town paid 4.1 million, a third of it from a fund, and rebuilt the wall higher than it had been.",
            "- Stone came from the quarry at Vell, forty miles inland.\n- The lamps are the old ones, repaired.",
        ]
    )


def test_forum_posts_are_kept() -> None:
    """The posts have the class of comments, but the page has no other text."""
    posts = "".join(
        f"<div class='comment'><p>{answer}</p></div>"
        for answer in (
            "Take the carburettor off first, and clean the jets with a wire that is thinner than the hole.",
            "I did that last year. The needle was worn, so look at it under a glass before you order anything, please.",
            "Mine was neither: the tank had rust in it, and the filter let it pass when the pressure was high enough.",
        )
    )
    assert main_text(page(f"<nav>{MENU}</nav><div id='comments'>{posts}</div>")).count("\n\n") == 2


def test_all_sections_of_a_manual_are_kept() -> None:
    sections = "".join(
        f"<div class='sect1'><h2>{number}. Step</h2><div><p>Turn the valve to the {side}, wait for a minute, and write "
        f"down what the gauge says before you go on with the next of these steps.</p></div></div>"
        for number, side in enumerate(("left", "right", "left", "right"), start=1)
    )
    text = main_text(page(f"<div id='toc'>{MENU}</div><div id='main'>{sections}</div>"))
    assert text.count("Turn the valve") == 4 and "2. Step" in text and "Shop" not in text


def test_code_and_tables_keep_their_lines() -> None:
    text = main_text(
        page(
            "<article><p>Call the function with a list, as it is shown here, and it gives back the sum.</p>"
            "<pre>def total(items):\n    return sum(items)</pre>"
            "<p>The table has the time that this took on three machines of ours, in seconds, smaller is better.</p>"
            "<table><tr><th>machine</th><th>seconds</th></tr><tr><td>old laptop</td><td>3.2</td></tr></table>"
            "<p>All of them had the same release of the interpreter, and nothing else was running.</p></article>"
        )
    )
    assert "\n\ndef total(items):\n    return sum(items)\n\n" in text
    assert "\n\nmachine | seconds\nold laptop | 3.2\n\n" in text


def test_a_poem_with_short_lines_is_kept() -> None:
    assert main_text(page("<div><p>So much depends<br>upon</p><p>a red wheel<br>barrow</p></div>")).split() == [
        *["So", "much", "depends", "upon", "a", "red", "wheel", "barrow"]
    ]


def test_japanese_without_spaces() -> None:
    sentence = "港は昨年の嵐で壊れた壁が修復され、月曜日に再開された。"
    text = main_text(page(f"<nav>{MENU}</nav><div><p>{sentence}</p><p>{sentence}</p></div>"))
    assert text == f"{sentence}\n\n{sentence}"


def test_a_page_without_tags_is_text() -> None:
    assert main_text("Only words,\n\nin two paragraphs.") == "Only words,\n\nin two paragraphs."


@pytest.mark.parametrize(
    ("data", "said", "text"),
    [
        ("Grüße".encode("latin-1"), "ISO-8859-1", "Grüße"),
        ("Grüße".encode(), "utf-8", "Grüße"),
        ("Grüße an alle Köche".encode("cp1252"), "utf-8", "Grüße an alle Köche"),  # the server is wrong
        ("Привет, как твои дела сегодня".encode("cp1251"), "windows-1251", "Привет, как твои дела сегодня"),
        ("Grüße".encode(), "no-such-charset", "Grüße"),
        ("Grüße".encode("utf-8-sig"), "latin-1", "Grüße"),
    ],
)
def test_the_declared_encoding_is_used_if_valid(data: bytes, said: str, text: str) -> None:
    assert decode(data, said) == text


@pytest.mark.parametrize(
    "hostile",
    [
        "<div>" * 50_000 + "end",
        "<b>" * 50_000 + "end",
        "<table><tr><td>" * 20_000,
        "<div " + " ".join(f"a{number}=1" for number in range(100_000)) + ">end</div>",
        "<div class='" + "article-" * 100_000 + "'>end</div>",
        "<p>hello" + ".)" * 100_000,
        "<div>" * 3_000 + "</p></b></span>" * 30_000,
        "<p>\0\ud800\ufffe</p>" * 1_000,
        "<!--" * 50_000,
        "<frameset><frame>",
        "<html></html>",
        "<!DOCTYPE html [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'>]><p>&b;</p>",
    ],
    ids=range(12),
)
def test_malformed_pages_do_not_raise_or_take_long(hostile: str) -> None:
    start = time.process_time()
    main_text(hostile)
    assert time.process_time() - start < 5
