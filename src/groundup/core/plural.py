"""Singular and plural forms of English nouns, for messages with counts."""

from __future__ import annotations


def pluralize(count: int, noun: str, plural: str = "") -> str:
    """Return a count followed by its noun in the right form, such as "1 row" or "2,000 rows".

    Args:
        count: Number of items.
        noun: Singular noun, or a phrase that ends with it, such as "training example".
        plural: Plural noun. Default: the singular noun with the regular ending "s", "es" or "ies".
    """
    return f"{count:,} {noun if count == 1 else plural or plural_of(noun)}"


def plural_of(noun: str) -> str:
    """Return the regular plural of an English noun, such as "rows", "matches" or "copies".

    Args:
        noun: Singular noun.
    """
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def singular_of(noun: str) -> str:
    """Return the singular of a regular English plural, such as "row", "match" or "copy".

    Args:
        noun: Plural noun. If it has no plural ending, it is returned unchanged.
    """
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    if noun.endswith(("sses", "xes", "zzes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and noun[-2:-1].isalpha() and not noun.endswith("ss") else noun
