"""Personal data and secrets out of a text, typed marks in."""

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
    """A text without what was masked.

    Attributes:
        counts: how often each kind was masked.
        spans: where they stood in the original, in order.
    """

    text: str
    counts: dict[str, int]
    spans: tuple[Span, ...] = ()


def placeholder_token(kind: str) -> str:
    """What stands in for a value: "[EMAIL]".

    Capitals in square brackets: a tokenizer learns them as one or two tokens, HTML and XML do not take them for
    a tag, no model's special token looks so (`<|...|>`, `<s>`, `[INST]` and BERT's few apart), and no finder takes
    them for personal data, so that masking twice changes nothing.
    """
    return f"[{kind.upper()}]"


class Masker:
    """Masks what the settings name.

    Args:
        settings: kinds, countries and patterns.

    Raises:
        ConfigError: a pattern of the user's that cannot be used, or a country that is not known; named.
    """

    def __init__(self, settings: PrivacySettings) -> None:
        kinds = set(settings.kinds)
        countries = _known("id_countries", settings.id_countries, COUNTRIES)
        regions = _known("phone_regions", settings.phone_regions, phone_regions()) if settings.phone_regions else []
        # In the order of trust: where two finders want the same characters, the first has them.
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
        self._finders = [finder for finder, wanted in finders if wanted and settings.enabled]

    def mask(self, text: str) -> Masked:
        """The text with marks, what was masked and where; time and memory are linear in its length."""
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
        """Masking as a step: the document with its text masked, and so another id."""

        def mask(document: Document) -> Document:
            return with_text(document, self.mask(document.text).text)

        return mask


def _known(key: str, codes: Sequence[str], known: Collection[str]) -> list[str]:
    upper = [code.upper() for code in codes]
    if unknown := sorted(set(upper) - set(known)):
        raise ConfigError(
            f"{key}: {unknown[0]}",
            rule="a country is given by its ISO 3166 code, and must be one that is known here",
            fix=f"Use some of: {', '.join(sorted(known))}.",
        )
    return upper


def _without_overlaps(spans: Iterable[Span]) -> list[Span]:
    """Spans that do not overlap, in the order of the text; of two that do, the earlier found one stays."""
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
