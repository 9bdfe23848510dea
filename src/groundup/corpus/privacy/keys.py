"""Detection of API keys by their prefix, by the name of a service before the key, or by their randomness."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from groundup.corpus.privacy.issuers import FORMS, VARIABLE_PREFIX_FORMS, bodies_by_prefix
from groundup.corpus.privacy.randomness import entropy, looks_random, may_be_secret
from groundup.corpus.privacy.spans import NormalizedText, Span

_MAX_PREFIX_LENGTH = 20  # characters
_NUM_BODY_BYTES = 8  # minimum length of the part after the prefix, to reduce the number of false candidates

# A key is at the start of the text, or after a character that is not a letter or digit. The text before a key may also
# be an escape sequence such as \n, or a percent-encoded character.
_BEFORE = r"(?:^|[^A-Za-z0-9]|\\[nrt]|%[0-9A-F]{2})"
_BEFORE_UNKNOWN = r"(?:^|[\s\"'`=:(\[{<>|,;*])"
# A key of an unknown issuer consists of a prefix such as "acme_live_", and a body that contains digits.
_UNKNOWN = r"[A-Za-z][A-Za-z0-9]{1,11}[_\-][A-Za-z_\-]*[0-9][A-Za-z_\-]*[A-Za-z0-9]"
_UNKNOWN_TOKEN = re.compile(
    r"(?P<issuer>[a-z][a-z0-9]{1,11}|[A-Z][A-Z0-9]{1,11})(?P<middle>(?:[_\-](?:[a-z]{1,8}|[A-Z]{1,8}|v?\d{1,2})){0,3})[_\-]"
    r"(?P<body>[\w\-]{20,400})(?![\w\-/+@]|=(?!=*[\s\"'`,;)]|=*$)|\.\w)",
    re.ASCII,
)
# A string with one of these prefixes is an ID, a hash or a file name, not a key.
_NO_ISSUERS = frozenset(
    [
        "acct",
        "asst",
        "batch",
        "blob",
        "bp",
        "build",
        "call",
        "card",
        "ch",
        "chatcmpl",
        "chunk",
        "cmpl",
        "commit",
        "conv",
        "css",
        "cus",
        "data",
        "evt",
        "file",
        "font",
        "ft",
        "hash",
        "html",
        "id",
        "img",
        "in",
        "index",
        "item",
        "job",
        "js",
        "main",
        "md5",
        "message",
        "msg",
        "node",
        "obj",
        "order",
        "pi",
        "pm",
        "po",
        "price",
        "prod",
        "py",
        "rc",
        "rec",
        "req",
        "resp",
        "rev",
        "run",
        "seti",
        "sha",
        "sha1",
        "sha256",
        "sha384",
        "sha512",
        "src",
        "step",
        "sub",
        "svg",
        "task",
        "test",
        "thread",
        "tmp",
        "toolu",
        "txn",
        "user",
        "usr",
        "uuid",
        "vendor",
        "vs",
    ]
)


class _Form(NamedTuple):
    """A key format: a regular expression, and the minimum entropy of a match in bits per character."""

    pattern: str
    entropy: float = 0.0


class _Service(NamedTuple):
    """A regular expression for the name of a service, and the format of the keys of this service."""

    words: str
    pattern: str
    entropy: float


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(resources.files(__package__).joinpath("gitleaks.json").read_text("utf-8"))
    return table


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


@cache
def _forms() -> tuple[dict[str, list[_Form]], list[_Form]]:
    """Return the key formats keyed by lowercase prefix, and the key formats that do not have a fixed prefix."""
    by_prefix: dict[str, list[_Form]] = {}
    for entry in _table()["forms"]:
        for prefix in entry.get("begins", ()):
            form = _Form(_ended(entry["pattern"], prefix), entry["entropy"])
            by_prefix.setdefault(prefix, []).append(form)
    for prefixes, pattern in FORMS:
        for prefix in prefixes.split():
            by_prefix.setdefault(prefix[:_MAX_PREFIX_LENGTH], []).append(_Form(_ended(pattern, prefix), 2.8))
    like = [_Form(_ended(entry["pattern"]), entry["entropy"]) for entry in _table()["forms"] if "like" in entry]
    return by_prefix, like + [_Form(_ended(pattern), 2.8) for _, pattern in VARIABLE_PREFIX_FORMS]


def _ended(pattern: str, prefix: str = "") -> str:
    """Return the pattern of a key, extended by a pattern for the text after the key.

    If the prefix is unambiguous, the letters, digits, "_" and "-" directly after the key are also masked.
    """
    unambiguous = (len(prefix) >= 4 and not prefix[:-1].isalnum()) or (prefix[-1:] in ("_", "-") and len(prefix) >= 4)
    return f"(?:{pattern})" + (r"[\w\-]{0,512}" if unambiguous else r"(?![A-Za-z0-9])")


@cache
def _bodies() -> dict[str, tuple[str, re.Pattern[str]]]:
    return {
        prefix.lower()[:_MAX_PREFIX_LENGTH]: (prefix, re.compile(re.escape(prefix) + f"({body})", re.ASCII))
        for prefix, body in bodies_by_prefix().items()
    }


@cache
def _lengths() -> tuple[int, ...]:
    """Return the lengths of all prefixes, in descending order."""
    return tuple(sorted({len(prefix) for prefix in [*_forms()[0], *_bodies()]}, reverse=True))


@cache
def _scanner() -> Any:
    """Return one RE2 automaton for the beginnings of all keys, so that a text is scanned only once."""
    import re2

    prefixes = "|".join(re.escape(prefix) for prefix in sorted({*_forms()[0], *_bodies()}))
    like = "|".join(
        [
            *(entry["like"] for entry in _table()["forms"] if "like" in entry),
            *(like for like, _ in VARIABLE_PREFIX_FORMS),
        ]
    )
    known = rf"{_BEFORE}((?i:{prefixes})[A-Za-z0-9_+/=.~%$:\-]{{{_NUM_BODY_BYTES}}}|{like})"
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 64 << 20
    return re2.compile(rf"{known}|{_BEFORE_UNKNOWN}({_UNKNOWN})".encode(), options)


def find_keys(view: NormalizedText) -> Iterator[Span]:
    """Yield API keys.

    Keys of known issuers are recognized by their format, and keys of unknown issuers by a prefix and a random body.
    """
    text, data, scanner = view.text, view.as_bytes, _scanner()
    at = 0
    while at < len(data) and (found := scanner.search(data, at)):
        start = max(found.start(1), found.start(2))
        end = _known(text, start) if found.start(1) >= 0 else 0
        if end or (end := _unknown(text, start)):
            yield Span(start, end, "api_key")
            at = end
        else:
            at = max(start, at + 1)  # The last character of the match may be the character before the next key.


def _known(text: str, start: int) -> int:
    """Return the end of the key that begins at `start`, or 0 if no key of a known issuer begins there."""
    forms, like = _forms()
    lowered = text[start : start + _MAX_PREFIX_LENGTH].lower()
    best = 0
    for length in _lengths():
        prefix = lowered[:length]
        for form in forms.get(prefix, ()):
            best = max(best, _end(text, start, form))
        if not best and (body := _bodies().get(prefix)) and (found := body[1].match(text, start)):
            value = found[1].rstrip(".-=")
            if looks_random(value[:256], 16, known=True):
                best = found.start(1) + len(value)
    return best or max(_end(text, start, form) for form in like)


def _end(text: str, start: int, form: _Form) -> int:
    found = _compiled(form.pattern).match(text, start)
    return found.end() if found and entropy(found[0][:256]) >= form.entropy else 0


def _unknown(text: str, start: int) -> int:
    found = _UNKNOWN_TOKEN.match(text, start)
    if not found or found["issuer"].lower() in _NO_ISSUERS:
        return 0
    return found.end() if looks_random(found["body"]) else 0


# The text between a service name and a key, as in "heroku_api_key = 1b2c..." or "my Heroku key is 1b2c...".
_ASSIGNED = r"[ \t\w.\-]{0,20}['\"\s`*\]]{0,3}(?:=|>|:|\|\||,|\b(?:is|was)\b)[`'\"\s=>:*]{0,5}"
_VALUE = re.compile(r"[\w\-=/+%:]{11,128}", re.ASCII)


@cache
def _services() -> tuple[Any, list[tuple[re.Pattern[str], list[_Service]]]]:
    """Return an RE2 automaton that finds service names before a value, and the key formats of each service name."""
    import re2

    by_words: dict[str, list[_Service]] = {}
    for entry in _table()["services"]:
        form = _Service(entry["words"], entry["pattern"], entry["entropy"])
        by_words.setdefault(entry["words"], []).append(form)
    options = re2.Options()
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 64 << 20
    names = "|".join(by_words).replace("(login|token)", "(?:login|token)")
    scanner = re2.compile(rf"(?i)((?:{names}){_ASSIGNED})[\w\-=/+%:]{{11}}".encode(), options)
    return scanner, [(re.compile(rf"(?i:{words})"), forms) for words, forms in by_words.items()]


def find_keys_of_services(view: NormalizedText) -> Iterator[Span]:
    """Yield keys that do not have a specific format, but that follow the name of their service."""
    scanner, names = _services()
    text, data = view.text, view.as_bytes
    at = 0
    while found := scanner.search(data, at):
        start = found.end(1)
        at = start
        value = _VALUE.match(text, start)
        if not value or (text[value.end() : value.end() + 1].isalnum()):
            continue
        forms = [form for words, forms in names if words.match(text, found.start(1)) for form in forms]
        whole = value[0].rstrip(":=-") if value[0].count("=") < 3 else value[0]
        for candidate in {value[0], whole}:
            if may_be_secret(candidate) and any(
                _compiled(form.pattern).fullmatch(candidate) and entropy(candidate) >= form.entropy for form in forms
            ):
                yield Span(start, start + len(candidate), "api_key")
                at = start + len(candidate)
                break
