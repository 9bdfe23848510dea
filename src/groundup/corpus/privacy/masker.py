"""Replacement of personal data and secrets by placeholder tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from groundup.core.errors import ConfigError
from groundup.core.types import Document
from groundup.corpus.privacy.accounts import find_ibans
from groundup.corpus.privacy.addresses import find_emails, find_macs, ip_finder
from groundup.corpus.privacy.custom import pattern_finders
from groundup.corpus.privacy.keys import find_keys, find_keys_of_services
from groundup.corpus.privacy.national_ids import COUNTRIES
from groundup.corpus.privacy.numbers import number_finder
from groundup.corpus.privacy.phones import phone_finder, phone_regions
from groundup.corpus.privacy.secrets import (
    assignment_finder,
    find_connection_keys,
    find_passwords_of_commands,
    find_private_keys,
    find_tokens,
    find_urls_with_passwords,
)
from groundup.corpus.privacy.settings import PrivacySettings
from groundup.corpus.privacy.spans import Finder, NormalizedText, Span
from groundup.corpus.steps import Step, with_text


@dataclass(frozen=True, slots=True)
class Masked:
    """A text in which personal data and secrets are masked.

    Attributes:
        text: The text with placeholder tokens.
        counts: Number of masked values, keyed by kind.
        spans: The spans of the original text that are masked, in order.
    """

    text: str
    counts: dict[str, int]
    spans: tuple[Span, ...] = ()


def placeholder_token(kind: str) -> str:
    """Return the placeholder token for a kind of value, e.g. "[EMAIL]".

    A placeholder token is an uppercase word in square brackets, because tokenizers learn such a word as one or two
    tokens. A placeholder token cannot be confused with HTML or XML tags, or with the special tokens of most models
    (`<|...|>`, `<s>`). The finders do not match placeholder tokens, so masking a text twice gives the same result as
    masking the text once.
    """
    return f"[{kind.upper()}]"


class Masker:
    """A masker, which replaces personal data and secrets by placeholder tokens.

    Args:
        settings: The kinds of values to mask, the countries and the user-defined patterns.

    Raises:
        ConfigError: A pattern is invalid, or a country is unknown.
    """

    def __init__(self, settings: PrivacySettings) -> None:
        kinds = set(settings.kinds)
        countries = _known("id_countries", settings.id_countries, COUNTRIES)
        regions = _known("phone_regions", settings.phone_regions, phone_regions()) if settings.phone_regions else []
        # The finders are in descending order of precision. If spans overlap, the span of the first finder is masked.
        finders: list[tuple[Finder, bool]] = [
            *((finder, True) for finder in pattern_finders(settings.patterns)),
            (find_private_keys, "private_key" in kinds),
            (find_urls_with_passwords, "password" in kinds),
            (find_passwords_of_commands, "password" in kinds),
            (find_tokens, "token" in kinds),
            (find_keys, "api_key" in kinds),
            (find_keys_of_services, "api_key" in kinds),
            (find_connection_keys, "api_key" in kinds),
            (find_emails, "email" in kinds),
            (
                assignment_finder(passwords="password" in kinds, keys="api_key" in kinds),
                bool(kinds & {"password", "api_key"}),
            ),
            (find_ibans, "iban" in kinds),
            (ip_finder(settings.private_addresses), "ip_address" in kinds),
            (find_macs, "mac_address" in kinds),
            (
                number_finder(cards="credit_card" in kinds, ids="national_id" in kinds, countries=countries),
                bool(kinds & {"credit_card", "national_id"}),
            ),
            (phone_finder(regions), "phone" in kinds),
        ]
        self._finders = [finder for finder, enabled in finders if enabled and settings.enabled]

    def mask(self, text: str) -> Masked:
        """Mask the personal data and secrets in a text. Time and memory are linear in the length of the text.

        Args:
            text: The text.
        """
        view = NormalizedText(text)
        spans = [span for finder in self._finders for span in finder(view)]
        if not spans:
            return Masked(text, {})
        chosen = [span for span in _without_overlaps(spans) if span.kind]
        if not chosen:
            return Masked(text, {})
        pieces, at = [], 0
        for start, end, kind in chosen:
            pieces += [text[at:start], placeholder_token(kind)]
            at = end
        pieces.append(text[at:])
        return Masked("".join(pieces), dict(Counter(span.kind for span in chosen)), tuple(chosen))

    def step(self) -> Step:
        """Return a pipeline step that masks the text of a document."""

        def mask(document: Document) -> Document:
            return with_text(document, self.mask(document.text).text)

        return mask


def _known(key: str, codes: Sequence[str], known: Collection[str]) -> list[str]:
    upper = [code.upper() for code in codes]
    if unknown := sorted(set(upper) - set(known)):
        raise ConfigError(
            f"unknown country {unknown[0]} in {key}",
            rule="countries must be given as ISO 3166 codes",
            fix=f"Use any of {', '.join(sorted(known))}.",
        )
    return upper


def _without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Sort spans by position. Of several overlapping spans, only the span that was found first is kept."""
    taken: list[Span] = []
    ordered = sorted((span.start, rank, span) for rank, span in enumerate(spans))
    best: dict[int, int] = {}
    for _, rank, span in ordered:
        while taken and taken[-1].end > span.start and best[len(taken) - 1] > rank:
            taken.pop()
        if not taken or taken[-1].end <= span.start:
            best[len(taken)] = rank
            taken.append(span)
    return taken
