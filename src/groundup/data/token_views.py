"""Tokenized examples for display, which show the role of every token and whether it is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from groundup.core.types import Message, Role
from groundup.tokenizer import ROLES, ChatTemplate, Tokenizer

TEMPLATE = "template"
_SPECIAL, _TRAINED, _TEMPLATE_STYLE = "cyan", "bold green", "dim"


@dataclass(frozen=True, slots=True)
class Piece:
    """A token, or several consecutive tokens whose bytes together form complete characters.

    Attributes:
        ids: Token ids.
        text: Text of the tokens.
        role: Role of the message that contains the tokens, or None if they are part of the chat template.
        trained: Whether the tokens are labels, so that they contribute to the loss.
        special: Whether the piece is a special token.
    """

    ids: tuple[int, ...]
    text: str
    role: Role | None
    trained: bool
    special: bool


@dataclass(frozen=True, slots=True)
class TokenView:
    """A tokenized conversation or text, prepared for display.

    Attributes:
        pieces: Pieces of one or more tokens, in order.
        cut: Number of tokens that were truncated at the end.
    """

    pieces: tuple[Piece, ...]
    cut: int = 0

    def counts(self) -> Counter[str]:
        """Return the number of tokens of each role and of the chat template."""
        counts: Counter[str] = Counter()
        for piece in self.pieces:
            counts[piece.role or TEMPLATE] += len(piece.ids)
        return counts

    @property
    def trained(self) -> int:
        """Number of trained tokens."""
        return sum(len(piece.ids) for piece in self.pieces if piece.trained)

    def parts(self) -> list[tuple[str, str]]:
        """Return (text, style) pairs for `Console.sample`.

        Trained text is enclosed in [[ ]], so that it can be recognized on a terminal without colors.
        """
        parts: list[tuple[str, str]] = []
        for trained, run in groupby(self.pieces, key=lambda piece: piece.trained):
            mark = (("[[", _TRAINED),) if trained else ()
            parts += mark
            parts += [(piece.text, _style(piece)) for piece in run]
            parts += ((("]]", _TRAINED),)) if trained else ()
        return parts


def view_conversation(
    template: ChatTemplate, tokenizer: Tokenizer, messages: Sequence[Message], *, longest: int | None = None
) -> TokenView:
    """Return a conversation with the same tokens and labels as in training.

    Args:
        template: Chat template.
        tokenizer: Tokenizer of the model.
        messages: Messages of the conversation.
        longest: Maximum number of tokens. Longer conversations are truncated.
    """
    ids, trained = template.encode_labeled(messages)
    speakers = template.token_roles(messages)
    columns = list(zip(ids, speakers, trained, strict=True))[:longest]
    return TokenView(tuple(_pieces(tokenizer, columns)), len(ids) - len(columns))


def view_text(tokenizer: Tokenizer, ids: Sequence[int], whole: int) -> TokenView:
    """Return an input text of a classifier. Tokens that the tokenizer adds around the text are shown as template.

    Args:
        tokenizer: Tokenizer of the classifier.
        ids: Token ids of the text after truncation.
        whole: Number of tokens before truncation.
    """
    special = set(tokenizer.control_tokens.values())
    begins, ends = len(tokenizer.affixes[0]), len(ids) - len(tokenizer.affixes[1])
    columns: list[tuple[int, Role | None, bool]] = [
        (n, "user" if begins <= place < ends and n not in special else None, False) for place, n in enumerate(ids)
    ]
    return TokenView(tuple(_pieces(tokenizer, columns)), whole - len(ids))


def role_table(seen: Iterable[TokenView]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a table with the number of tokens and trained tokens per role and in total."""
    tokens: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for conversation in seen:
        for piece in conversation.pieces:
            whose = piece.role or TEMPLATE
            tokens[whose] += len(piece.ids)
            trained[whose] += len(piece.ids) * piece.trained
    rows = [(whose, f"{tokens[whose]:,}", f"{trained[whose]:,}") for whose in (*ROLES, TEMPLATE) if tokens[whose]]
    return ("", "tokens", "trained"), [*rows, ("total", f"{tokens.total():,}", f"{trained.total():,}")]


def _style(piece: Piece) -> str:
    if piece.trained:
        return f"{_TRAINED} underline" if piece.special else _TRAINED
    if piece.special:
        return _SPECIAL
    return _TEMPLATE_STYLE if piece.role is None else ""


def _pieces(tokenizer: Tokenizer, columns: Sequence[tuple[int, Role | None, bool]]) -> Iterator[Piece]:
    special = set(tokenizer.control_tokens.values())
    waiting: list[int] = []
    data = b""
    for place, (token, role, trained) in enumerate(columns):
        waiting.append(token)
        data += tokenizer.token_bytes(token)
        after = columns[place + 1] if place + 1 < len(columns) else None
        continues = after is not None and after[1:] == (role, trained) and after[0] not in special
        if continues and token not in special and not _whole(data):
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
