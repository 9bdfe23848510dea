"""Singular and plural of counted nouns."""

from __future__ import annotations


def pluralize(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: "1 row", "2,000 rows".

    Args:
        count: How many.
        noun: Singular noun, which may end a phrase: "training example".
        plural: Plural noun. Default: by the regular rules ("s", "es", "ies").
    """
    return f"{count:,} {noun if count == 1 else plural or plural_of(noun)}"


def plural_of(noun: str) -> str:
    """Return the regular plural of an English noun: "rows", "matches", "copies".

    Args:
        noun: Singular noun.
    """
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def singular_of(noun: str) -> str:
    """Return the singular of a regular English plural: "row", "match", "copy".

    Args:
        noun: Plural noun. A noun without a plural ending is returned unchanged.
    """
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    if noun.endswith(("sses", "xes", "zzes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and noun[-2:-1].isalpha() and not noun.endswith("ss") else noun
