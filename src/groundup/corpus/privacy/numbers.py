"""Detection of payment card numbers and national IDs by their layout, check digits and label."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from groundup.corpus.privacy.accounts import CARD_LAYOUTS, is_card
from groundup.corpus.privacy.labels import label
from groundup.corpus.privacy.national_ids import NATIONAL_IDS, by_layout
from groundup.corpus.privacy.spans import Finder, NormalizedText, Span

# Groups of uppercase letters and digits, separated by single characters. The shortest ID has 7 characters.
_RUN = re.compile(r"(?<!\w)(?=[0-9A-Z .\-/+(]{7})[0-9A-Z]{1,20}(?:[ .\-/+(][0-9A-Z]{1,20}){0,200}(?!\w)")
_PART = re.compile(r"[0-9A-Z]+")
_MAX_PARTS = 8
_YEARS = re.compile(r"(?:1[5-9]|20)\d\d(?:[ .\-/](?:1[5-9]|20)\d\d)*")
# Shapes of the IDs that do not contain six consecutive digits: the Italian codice fiscale and the Indian PAN.
_LETTER_SHAPES = (b"AAAAAA00A00A000A", b"AAAAA0000A")


def inside_address(text: str, start: int) -> bool:
    """Return whether the number at `start` is part of a URL. Numbers in URLs are identifiers of the web site."""
    word = text[max(0, start - 256) : start].rsplit(None, 1)[-1:] if start and not text[start - 1].isspace() else []
    return bool(word) and ("://" in word[0] or word[0].startswith("www."))


def number_finder(*, cards: bool, ids: bool, countries: Collection[str] = ()) -> Finder:
    """Return a finder of payment cards and national IDs.

    Args:
        cards: Whether to find payment card numbers.
        ids: Whether to find national IDs.
        countries: ISO 3166 codes of the countries whose national IDs are found. If no country is given, the IDs of all
            supported countries are found.
    """
    selected = [each for each in NATIONAL_IDS if not countries or each.country in countries or not each.country]
    layouts = by_layout(selected) if ids else {}
    card_layouts = CARD_LAYOUTS if cards else frozenset()

    def kind_of(text: str, start: int, end: int, layout: str, crowded: bool) -> str:
        compact = re.sub(r"[^0-9A-Z]", "", text[start:end])
        known = layouts.get(layout, ())
        fits = [each for each in known if each.pattern.fullmatch(compact) and each.check(compact)]
        may_be_card = layout in card_layouts and compact.isdigit() and is_card(compact, labeled=True, grouped=True)
        if (not fits and not may_be_card) or inside_address(text, start) or _is_trivial(text[start:end]):
            return ""
        kind, word, adjacent = label(text, start, end)
        if kind == "other" or (crowded and not adjacent):
            return ""
        if may_be_card and is_card(compact, labeled=kind == "credit_card", grouped=not layout.isdigit()):
            return "credit_card"
        if kind == "national_id":
            is_id = any(each.matches_label(layout, word, adjacent) for each in fits)
        else:
            is_id = kind != "phone" and any(layout in each.unlabeled for each in fits)
        return "national_id" if is_id else ""

    def find(view: NormalizedText) -> Iterator[Span]:
        if not view.has_number and not any(shape in view.shape for shape in _LETTER_SHAPES):
            return
        text = view.text
        for run in _runs(text):
            at = 0
            while at < len(run):
                layout, taken, best = "", 0, None
                for last in range(at, min(len(run), at + _MAX_PARTS)):
                    start, end = run[last]
                    layout += (text[start - 1] if last > at else "") + str(end - start)
                    if (layout in layouts or layout in card_layouts) and _is_separate(text, run, at, last):
                        crowded = _in_number_table(text, run, at, last)
                        if kind := kind_of(text, run[at][0], end, layout, crowded):
                            end += "(" in layout and text[end : end + 1] == ")"  # A123456(3)
                            taken, best = last + 1, Span(run[at][0], end, kind)  # The last match is the longest.
                if best:
                    yield best
                at = taken or at + 1

    return find


def _runs(text: str) -> Iterator[list[tuple[int, int]]]:
    """Yield each sequence of groups that are separated by single characters, as a list of the spans of its groups."""
    for found in _RUN.finditer(text):
        yield [part.span() for part in _PART.finditer(text, *found.span())]


def _is_separate(text: str, run: list[tuple[int, int]], first: int, last: int) -> bool:
    """Return whether the groups from `first` to `last` are a complete number.

    The groups are not complete if they are part of a longer number, an amount of money or a decimal fraction.
    """
    start, end = run[first][0], run[last][1]
    if first and text[start - 1] in ".-/+" and _has_digit(text, run[first - 1]):
        return False
    if last + 1 < len(run) and text[end] in ".-/" and _has_digit(text, run[last + 1]):
        return False
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before[-1:] in ("$", "€", "£", "¥", "#", "+", "*"):
        return False
    if len(before) == 2 and before[1] in ".,:" and before[0].isdigit():
        return False
    return not (after[:1] in ("%", "€", "*", "#") or (len(after) == 2 and after[0] in ".,:" and after[1].isdigit()))


def _is_trivial(text: str) -> bool:
    """Return whether a number consists of ones and zeros only, of one repeated digit, or of a list of years."""
    return set(text) <= set("01 -.") or len(set(text)) == 1 or _YEARS.fullmatch(text) is not None


def _in_number_table(text: str, run: list[tuple[int, int]], first: int, last: int) -> bool:
    """Return whether the number is part of a longer sequence of groups of similar length.

    For example, such sequences of groups are tables of hexadecimal numbers, and large numbers such as 1 250 000.
    """
    sizes = {end - start for start, end in run[first : last + 1]}
    if first == last or len(sizes) > 1 or text[run[first][1]] != " ":
        return False
    min_size = 1 if sizes == {3} else sizes.pop() - 1  # In 1 250 000, the first group has one to three digits.
    neighbors = [run[at] for at in (first - 1, last + 1) if 0 <= at < len(run)]
    return any(min_size <= part[1] - part[0] <= 6 and _has_digit(text, part) for part in neighbors)


def _has_digit(text: str, part: tuple[int, int]) -> bool:
    return any(character.isdigit() for character in text[slice(*part)])
