"""Conversations as a model will see them: every token with whose it is, and whether it is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from groundup.core.types import Message, Role
from groundup.tokenizer import ROLES, ChatTemplate, Tokenizer

TEMPLATE = "template"
_SPECIAL, _TRAINED, _OURS = "cyan", "bold green", "dim"


@dataclass(frozen=True, slots=True)
class Piece:
    """A token, or several that only together are whole characters.

    Attributes:
        role: whose words it is part of; None: the template's.
        special: a token that no text becomes.
    """

    ids: tuple[int, ...]
    text: str
    role: Role | None
    trained: bool
    special: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """A conversation, token by token.

    Attributes:
        cut: how many tokens at its end do not fit.
    """

    pieces: tuple[Piece, ...]
    cut: int = 0

    def counts(self) -> Counter[str]:
        """Tokens of each role and of the template."""
        counts: Counter[str] = Counter()
        for piece in self.pieces:
            counts[piece.role or TEMPLATE] += len(piece.ids)
        return counts

    @property
    def trained(self) -> int:
        """How many tokens are trained."""
        return sum(len(piece.ids) for piece in self.pieces if piece.trained)

    def parts(self) -> list[tuple[str, str]]:
        """Text with styles for `Console.sample`; what is trained stands in [[ ]], for those who see no colours."""
        parts: list[tuple[str, str]] = []
        for trained, run in groupby(self.pieces, key=lambda piece: piece.trained):
            mark = (("[[", _TRAINED),) if trained else ()
            parts += mark
            parts += [(piece.text, _style(piece)) for piece in run]
            parts += ((("]]", _TRAINED),)) if trained else ()
        return parts


def see(
    template: ChatTemplate, tokenizer: Tokenizer, messages: Sequence[Message], *, longest: int | None = None
) -> Seen:
    """What training shows a model of a conversation.

    Args:
        longest: tokens that are kept, where more would be cut off.
    """
    ids, trained = template.encode_labelled(messages)
    speakers = template.speakers(messages)
    columns = list(zip(ids, speakers, trained, strict=True))[:longest]
    return Seen(tuple(_pieces(tokenizer, columns)), len(ids) - len(columns))


def see_text(tokenizer: Tokenizer, ids: Sequence[int], whole: int) -> Seen:
    """What a classifier is shown of a text; the words around it are of the template.

    Args:
        ids: as it reads them.
        whole: how many the text has.
    """
    special = set(tokenizer.markers.values())
    begins, ends = len(tokenizer.around[0]), len(ids) - len(tokenizer.around[1])
    columns: list[tuple[int, Role | None, bool]] = [
        (n, "user" if begins <= place < ends and n not in special else None, False) for place, n in enumerate(ids)
    ]
    return Seen(tuple(_pieces(tokenizer, columns)), whole - len(ids))


def role_table(seen: Iterable[Seen]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows: tokens and trained tokens of each role, of the template, and in all."""
    tokens: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for conversation in seen:
        for piece in conversation.pieces:
            whose = piece.role or TEMPLATE
            tokens[whose] += len(piece.ids)
            trained[whose] += len(piece.ids) * piece.trained
    rows = [(whose, f"{tokens[whose]:,}", f"{trained[whose]:,}") for whose in (*ROLES, TEMPLATE) if tokens[whose]]
    return ("", "tokens", "trained"), [*rows, ("in all", f"{tokens.total():,}", f"{trained.total():,}")]


def _style(piece: Piece) -> str:
    if piece.trained:
        return f"{_TRAINED} underline" if piece.special else _TRAINED
    if piece.special:
        return _SPECIAL
    return _OURS if piece.role is None else ""


def _pieces(tokenizer: Tokenizer, columns: Sequence[tuple[int, Role | None, bool]]) -> Iterator[Piece]:
    special = set(tokenizer.markers.values())
    waiting: list[int] = []
    data = b""
    for place, (token, role, trained) in enumerate(columns):
        waiting.append(token)
        data += tokenizer.token_bytes(token)
        after = columns[place + 1] if place + 1 < len(columns) else None
        goes_on = after is not None and after[1:] == (role, trained) and after[0] not in special
        if goes_on and token not in special and not _whole(data):
            continue
        text = data.decode("utf-8", errors="replace")
        yield Piece(tuple(waiting), text, role, trained, token in special)
        waiting, data = [], b""


def _whole(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
