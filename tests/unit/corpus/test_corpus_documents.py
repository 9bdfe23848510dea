"""Office documents, books, mail and chats: their visible text is extracted, and malformed files do not raise."""

from __future__ import annotations

import io
import json
import zipfile
from email.message import EmailMessage
from functools import partial

import pytest

from groundup.corpus.formats import Extracted, extract
from groundup.corpus.records import RecordOptions
from groundup.corpus.sources import Item

W = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
)
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/>'
    "</Relationships>"
)


def found(path: str, data: bytes) -> list[Extracted | str]:
    items = extract(Item(path, len(data)), partial(io.BytesIO, data), RecordOptions(), None)
    return [each if isinstance(each, Extracted) else f"{each.origin}: {each.reason}!" for each in items]


def read(data: bytes, path: str = "a") -> list[str]:
    return [each.text if isinstance(each, Extracted) else each for each in found(path, data)]


def zipped(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def docx(body: str, **parts: str) -> bytes:
    document = f"<w:document {W}><w:body>{body}</w:body></w:document>"
    others = {f"word/{name}.xml": content for name, content in parts.items()}
    return zipped(
        {"[Content_Types].xml": "<Types/>", "_rels/.rels": RELATIONS, "word/document.xml": document, **others}
    )


def paragraph(text: str, properties: str = "") -> str:
    return f'<w:p><w:pPr>{properties}</w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def test_docx() -> None:
    item = '<w:numPr><w:numId w:val="1"/></w:numPr>'
    cell = "<w:tc>%s</w:tc>"
    body = (
        paragraph("A report", '<w:pStyle w:val="Title"/>')
        + '<w:p><w:r><w:t xml:space="preserve">One </w:t></w:r><w:hyperlink><w:r><w:t>link</w:t></w:r></w:hyperlink>'
        '<w:r><w:footnoteReference w:id="2"/></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>'
        "<w:r><w:instrText>PAGE</w:instrText><w:t>.</w:t></w:r></w:p>"
        + paragraph("first", item)
        + paragraph("second", item)
        + "<w:tbl>"
        + "".join(
            f"<w:tr>{cell % paragraph(f'{row}1')}{cell % (paragraph(f'{row}2') + paragraph('more'))}</w:tr>"
            for row in "ab"
        )
        + "</w:tbl><w:p><mc:AlternateContent><mc:Choice><w:r><w:t>box</w:t></w:r></mc:Choice>"
        "<mc:Fallback><w:r><w:t>box</w:t>"
        "</w:r></mc:Fallback></mc:AlternateContent></w:p>"
    )
    notes = f'<w:footnotes {W}><w:footnote w:id="2">{paragraph("A note.")}</w:footnote></w:footnotes>'
    assert read(docx(body, footnotes=notes)) == [
        "A report\n\nOne link.\n\n- first\n- second\n\na1\ta2 more\nb1\tb2 more\n\nbox\n\nA note."
    ]


def test_odt() -> None:
    content = (
        '<office:document-content xmlns:office="urn:o" xmlns:text="urn:t" xmlns:table="urn:b">'
        "<office:body><office:text>"
        '<text:h text:outline-level="1">Head</text:h><text:p>One<text:s text:c="2"/><text:span>bold</text:span> tail'
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>A note.</text:p></text:note-body>"
        "</text:note>.</text:p><text:list><text:list-item><text:p>first</text:p></text:list-item><text:list-item>"
        "<text:p>second</text:p></text:list-item></text:list></office:text></office:body></office:document-content>"
    )
    data = zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})
    assert read(data) == ["Head\n\nOne  bold tail.\n\n- first\n- second\n\nA note."]


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/>'
    "</rootfiles></container>"
)


def epub(chapters: dict[str, str], order: list[str], **others: str) -> bytes:
    items = "".join(
        f'<item id="{name}" href="{name.replace(" ", "%20")}" media-type="application/xhtml+xml"/>'
        for name in {**chapters, **others}
    )
    spine = "".join(f'<itemref idref="{name}"/>' for name in order)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:date>1813"
        f'</dc:date></metadata><manifest>{items}<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" '
        f'properties="nav"/></manifest><spine><itemref idref="nav"/>{spine}</spine></package>'
    )
    pages = {f"OEBPS/{name}": f"<html><body>{body}</body></html>" for name, body in chapters.items()}
    return zipped(
        {"mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER, "OEBPS/book.opf": package, **pages}
    )


def test_epub_follows_its_spine() -> None:
    chapters = {"b 2.xhtml": "<h1>Two</h1><p>Second.</p>", "a.xhtml": "<h1>One</h1><p>First &amp; foremost.</p>"}
    (book,) = found("shelf/x", epub(chapters, ["a.xhtml", "b 2.xhtml"]))
    assert isinstance(book, Extracted)
    assert book.text == "One\n\nFirst & foremost.\n\nTwo\n\nSecond."
    assert book.date == "1813"


def test_a_chapter_with_a_million_tags_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.formats.html._MAX_TAGS", 1000)
    book = epub({"a.xhtml": "<p>One.</p>", "b.xhtml": "<br/>" * 2000}, ["a.xhtml", "b.xhtml"])
    assert read(book) == ["One.", "a/OEBPS/b.xhtml: too large!"]


def test_epub_whose_chapter_is_missing_or_outside() -> None:
    data = epub(
        {"a.xhtml": "<p>First.</p>"},
        ["a.xhtml", "lost.xhtml", "../../../etc/passwd"],
        **{"lost.xhtml": "", "../../../etc/passwd": ""},
    )
    assert read(data) == ["First.", "a/OEBPS/lost.xhtml: damaged!", "a/../../etc/passwd: unsafe path!"]


@pytest.mark.parametrize(
    "entity", ['<!ENTITY x SYSTEM "file:///etc/passwd">', '<!ENTITY x "aaaaaaaaaa"><!ENTITY y "&x;&x;&x;">']
)
def test_entities_in_office_documents_are_refused(entity: str) -> None:
    """Entities can read local files or expand to gigabytes."""
    document = f"<!DOCTYPE d [{entity}]><w:document {W}><w:body>{paragraph('&x;')}</w:body></w:document>"
    assert read(zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": document})) == ["a: damaged!"]
    odt = f"<!DOCTYPE d [{entity}]><d>&x;</d>"
    assert read(zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": odt})) == ["a: damaged!"]


def test_a_bomb_in_an_office_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.streams.MIN_BOMB_BYTES", 1 << 20)
    assert read(docx(paragraph("a" * (8 << 20)))) == ["a: decompression bomb!"]


@pytest.mark.parametrize("open_tag", ["<w:sdt>", "<w:tbl><w:tr><w:tc>"])
def test_open_elements_have_a_limit(open_tag: str) -> None:
    """Open elements stay in memory: 18 MB of open tags took 900 MB."""
    assert read(docx(open_tag * 20_000)) == ["a: too deeply nested!"]


def test_deeply_nested_elements() -> None:
    deep = 50_000
    assert read(docx("<w:p>" + "<w:r>" * deep + "</w:r>" * deep + "</w:p>")) == ["a: too deeply nested!"]
    page = "<div>" * deep + "x" + "</div>" * deep
    assert read(epub({"a.xhtml": page}, ["a.xhtml"])) == ["a/OEBPS/a.xhtml: too deeply nested!"]


def message(**headers: str) -> EmailMessage:
    made = EmailMessage()
    for name, value in {"From": "Ada <ada@example.org>", "To": "Bob <bob@example.org>", **headers}.items():
        made[name] = value
    return made


def test_mail_with_alternatives_and_attachments() -> None:
    made = message(Subject="Grüße aus Köln", Date="Tue, 03 Mar 2020 10:00:00 +0100")
    made.set_content(
        "Schöne Grüße!\n\n> Wie geht es?\n\nGut.\n-- \nAda\nTel. 123\n", charset="iso-8859-1", cte="quoted-printable"
    )
    made.add_alternative("<html><body><p>Schöne <b>Grüße!</b></p></body></html>", subtype="html")
    made.add_attachment(b"Attached.", maintype="text", subtype="plain", filename="notes.txt")
    made.add_attachment(zipped({"in.txt": b"Packed."}), maintype="application", subtype="zip", filename="x.zip")
    first, *rest = found("in/1", made.as_bytes())
    assert first == Extracted("in/1", "Grüße aus Köln\n\nSchöne Grüße!\n\nGut.", date="2020-03-03T10:00:00+01:00")
    assert [(each.origin, each.text) for each in rest if isinstance(each, Extracted)] == [
        ("in/1/1-notes.txt", "Attached."),
        ("in/1/2-x.zip/in.txt", "Packed."),
    ]


@pytest.mark.parametrize(
    "answered",
    [
        "On Tue, Mar 3, 2020 at 10:00 AM Bob <bob@example.org>\nwrote:\n\n> Old.\n>\n> Older.\n",
        "Am 03.03.20 um 10:00 schrieb Bob:\n> Old.\n",
        "-----Original Message-----\nFrom: Bob\nOld.\n",
        "From: Bob <bob@example.org>\nSent: Tuesday, March 3, 2020 10:00 AM\nTo: Ada\n\nOld.\n",
        "-- \nAda\nOld street 1\n",
    ],
)
def test_the_quoted_mail_is_removed(answered: str) -> None:
    """Otherwise a thread of ten mails contains the first mail ten times."""
    made = message(Subject="Re: s", Date="Tue, 03 Mar 2020 10:00:00 +0100")
    made.set_content(f"New.\n\n{answered}")
    assert read(made.as_bytes()) == ["Re: s\n\nNew."]


def test_mail_with_html_only() -> None:
    made = message(Subject="News", Date="Tue, 03 Mar 2020 10:00:00 +0100")
    made.set_content("<p>One.</p><style>p {}</style><p>Two &amp; three.</p>", subtype="html")
    assert read(made.as_bytes()) == ["News\n\nOne.\n\nTwo & three."]


@pytest.mark.parametrize("start", ["<html>", "<!-- saved -->\n<HTML xmlns:o='urn:x'>\n", "<!DOCTYPE HTML>\n", "<BODY>"])
def test_a_page_sent_as_plain_text(start: str) -> None:
    """Some newsletters declare text/plain for HTML, so tags got into the corpus."""
    made = message(Subject="News")
    made.set_content(f"{start}<p>One.</p><p>Two &amp; three.</p>")
    assert read(made.as_bytes()) == ["News\n\nOne.\n\nTwo & three."]


@pytest.mark.parametrize("declared", ["koi8-r", ""])
@pytest.mark.parametrize("encoding", ["koi8-r", "utf-8"])
def test_a_subject_in_raw_bytes(encoding: str, declared: str) -> None:
    """RFC 5322 forbids raw bytes in headers, but old mail has them. Each byte became U+FFFD."""
    subject, text = "Приглашение на праздник весны", "Дорогие друзья, приходите к нам в гости."
    kind = f"\nContent-Type: text/plain; charset={declared}" if declared else ""
    body = text.encode(declared or encoding)
    head = f"From: a@b.c\nTo: a@b.c\nMessage-ID: <1@b.c>{kind}\nSubject: {subject}\n\n".encode(encoding)
    assert read(head + body) == [f"{subject}\n\n{text}"]


def test_mailbox() -> None:
    letters = []
    for number in range(3):
        made = message(Subject=f"Letter {number}", Date="Tue, 03 Mar 2020 10:00:00 +0100")
        made.set_content(f"Text {number}.\n\nFrom here on it is different.\n")
        letters.append(b"From ada@example.org Tue Mar  3 10:00:00 2020\n" + made.as_bytes() + b"\n")
    assert read(b"".join(letters)) == [f"Letter {n}\n\nText {n}.\n\nFrom here on it is different." for n in range(3)]


def test_a_line_that_starts_like_an_mbox_separator() -> None:
    """ "From now on, at 10:00" split a mail into two, and the second one had no text."""
    text = "Dear all,\n\nFrom now on, we meet at 10:00 sharp.\n\nBring your own chair.\n"
    envelope = "From ada@example.org Tue Mar  3 10:00:00 2020\nSubject: s\nFrom: a@b.c\n\n"
    assert read(f"{envelope}{text}\n{envelope}Two.\n".encode()) == [f"s\n\n{text.strip()}", "s\n\nTwo."]


def test_a_mail_over_the_size_limit_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.corpus.formats.mail._READ_SIZE", 1000)
    envelope = "From ada@example.org Tue Mar  3 10:00:00 2020\nSubject: s\nFrom: a@b.c\n\n"
    box = f"{envelope}One.\n\n{envelope}{'a' * 5000}\nmore\n\n{envelope}Three.\n"
    assert read(box.encode()) == ["s\n\nOne.", "a#2: too large!", "s\n\nThree."]


def test_an_empty_text_alternative_is_ignored() -> None:
    """Some programs send HTML with an empty text alternative, which was used."""
    made = message(Subject="News", Date="Tue, 03 Mar 2020 10:00:00 +0100")
    made.set_content("\n \n")
    made.add_alternative("<p>What is new.</p>", subtype="html")
    assert read(made.as_bytes()) == ["News\n\nWhat is new."]


def test_soft_line_breaks_with_delsp() -> None:
    """With DelSp (RFC 3676), spaces that mark soft line breaks or stuff a line are not part of the text."""
    head = "From: a@b.c\nTo: a@b.c\nSubject: s\nContent-Type: text/plain; charset=utf-8; format=flowed"
    assert read(f"{head}; delsp=yes\n\n吾輩は \n猫である。\n".encode()) == ["s\n\n吾輩は猫である。"]
    assert read(f"{head}\n\nSoft \nends.\n From stuffed\n".encode()) == ["s\n\nSoft ends.\nFrom stuffed"]


def test_deeply_nested_mail() -> None:
    """A recursive parser reaches the recursion limit, which must affect only this file."""
    lines = "".join(
        f'Content-Type: multipart/mixed; boundary="b{n}"\nFrom: a@x.org\nTo: b@x.org\nSubject: s\n\n--b{n}\n'
        for n in range(3000)
    )
    assert read(lines.encode()) in (["a: too deeply nested!"], ["a: no text!"])


@pytest.mark.parametrize(
    "data",
    [
        b"From: =?utf-8?B?////?=\nTo: =?x-none?Q?=FF?=\nSubject: =?utf-8?Q?=C3?= \xff\xfe\nDate: never\n\nBody.\n",
        b"From: a@b.c\nTo: a@b.c\nSubject: s\nContent-Type: text/plain; charset=no-such\n\nBody.\n",
        b"From: a@b.c\nTo: a@b.c\nSubject: s\nContent-Transfer-Encoding: base64\n\nBody.\n",
        b"From: a@b.c\nTo: a@b.c\nSubject: s\nContent-Type: multipart/mixed\n\nBody.\n",
    ],
)
def test_malformed_mail(data: bytes) -> None:
    assert len(read(data)) == 1


@pytest.mark.parametrize(
    "lines",
    [
        ["[24.12.23, 18:05:11] Ada: Hello\nthere", "[24.12.23, 18:06:00] Bob: \u200eBild weggelassen",
         "[24.12.23, 18:07:00] Bob: Hi"],
        ["12/24/23, 6:05\u202fPM - Ada: Hello\nthere", "12/24/23, 6:06\u202fPM - Bob: <Media omitted>",
         "12/24/23, 6:07\u202fPM - Bob: Hi"],
        ["24/12/2023 18:05 - Ada: Hello\nthere", "24/12/2023 18:06 - Ada added Bob", "24/12/2023 18:07 - Bob: Hi"],
        ["2023-12-24, 18:05 - Ada: Hello\nthere", "2023-12-24, 18:06 - Bob: IMG-1.jpg (fil bifogad)",
         "2023-12-24, 18:07 - Bob: Hi"],
    ],
)  # fmt: skip
def test_whatsapp_in_several_locales(lines: list[str]) -> None:
    assert read("\n".join(lines).encode(), "chat.txt") == ["Ada: Hello\nthere\nBob: Hi"]


@pytest.mark.parametrize(
    ("exported", "text"),
    [
        (
            [{"title": "t", "create_time": 1.0, "current_node": "c", "mapping": {
                "a": {"parent": None, "message": None},
                "b": {"parent": "a", "message": {"author": {"role": "user"}, "content": {"parts": ["Hi?"]}}},
                "x": {"parent": "b", "message": {"author": {"role": "assistant"}, "content": {"parts": ["Dropped."]}}},
                "c": {"parent": "b", "message": {"author": {"role": "assistant"}, "content": {"parts": ["Yes."]}}},
            }}],
            "user: Hi?\nassistant: Yes.",
        ),
        (
            [
                {"type": "message", "user": "U1", "text": "See <https://x.example|this> &amp; that",
                 "ts": "1700000000.1",
                 "user_profile": {"display_name": "ada"}},
                {"type": "message", "subtype": "channel_join", "user": "U2", "text": "joined", "ts": "1700000001.1"},
                {"type": "message", "user": "U2", "text": "ok", "ts": "1700000002.1"},
            ],
            "ada: See this & that\nU2: ok",
        ),
        (
            {"guild": {"name": "g"}, "channel": {"name": "c"}, "messages": [
                {"id": "1", "timestamp": "2023-01-01T00:00:00+00:00", "content": "Hello",
                 "author": {"name": "ada", "nickname": "Ada"}},
                {"id": "2", "timestamp": "2023-01-01T00:01:00+00:00", "content": "", "author": {"name": "bob"}},
            ]},
            "Ada: Hello",
        ),
        (
            {"participants": [{"name": "Ada"}], "messages": [
                {"sender_name": "Bob", "timestamp_ms": 1600000001000, "content": "Hi"},
                {"sender_name": "Ada", "timestamp_ms": 1600000000000, "content": "Hello"},
            ]},
            "Ada: Hello\nBob: Hi",
        ),
    ],
)  # fmt: skip
def test_chat_exports(exported: object, text: str) -> None:
    assert read(json.dumps(exported).encode(), "export.json") == [text]
    assert read(json.dumps(exported).encode(), "conversations") == [text]


def test_malformed_chat_exports() -> None:
    for value in (
        [{"mapping": {"a": {"parent": ["x"], "message": {"author": "me", "content": 1}}}, "current_node": []}],
        {"messages": [{"id": 1, "type": "message", "date": None, "from": {}, "text": [1, {"text": 2}]}], "type": 1},
        [{"type": "message", "ts": "never", "text": 1, "user_profile": "x"}],
        {"channel": 1, "messages": [{"timestamp": 1, "content": [], "author": 3}]},
        [{"chat_messages": [{"sender": [], "text": {}}, 3]}, {"chat_messages": 1}],
    ):
        assert read(json.dumps(value).encode(), "export.json") is not None
