"""General text or conversations among the examples of a tuning, so that less of what the model could do is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.artifact import ARTIFACT, read_intact
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.data import table_identity

if TYPE_CHECKING:
    from groundup.core.types import Example
    from groundup.data.encoded import Encoded
    from groundup.tokenizer import ChatTemplate, Tokenizer

_PIECE = 512  # tokens of text that are read at once
_BYTES_A_TOKEN = 6  # more than any vocabulary of ours needs, so that enough text is read


def replay_identity(path: Path) -> str:
    """A value that changes when what is replayed does."""
    return read_intact(path).digest if (path / ARTIFACT).is_file() else table_identity(path)


def replayed(
    path: Path | None,
    share: float,
    examples: Sequence[Encoded],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    context: int,
) -> list[Encoded]:
    """Examples to mix in, as many as make up `share` of all trained tokens; none for a share of 0.

    Args:
        path: a corpus, token shards, a table of conversations, or files of text.
        examples: those of the tuning.
        context: tokens at once, at most.

    Raises:
        ConfigError: a share of nothing.
        DataError: too little text there.
    """
    from groundup.data.encoded import compact, trained_tokens

    if not share:
        return []
    if path is None:
        raise ConfigError(
            f"replay_fraction = {share:g}, and no replay",
            rule="what is mixed in comes from general text or conversations",
            fix="Say where they are: --set replay=FOLDER.",
        )
    wanted = round(share / (1 - share) * trained_tokens(examples))
    taken: list[Encoded] = []
    found = 0
    conversations = _conversations(path)
    told = (template.encode_labelled(example.messages) for example in conversations)
    for ids, trained in told if conversations else _pieces(path, tokenizer, context, wanted):
        if found >= wanted:
            break
        if len(ids) <= context:
            taken.append(compact(ids, trained))
            found += sum(trained)
    if found < wanted / 2:  # what is there would be learned by heart
        raise DataError(
            f"{path}: {found:,} tokens to replay",
            rule=f"{share:.0%} of all trained tokens are {wanted:,}",
            fix="Give more text, or a smaller share: replay_fraction = 0.05.",
        )
    return taken


def _conversations(path: Path) -> list[Example]:
    """The conversations of a table, from everywhere in it; none where it is no such table."""
    from groundup.core.types import text_id
    from groundup.data import read_conversations
    from groundup.data.conversations import FolderExamples

    if (path / ARTIFACT).is_file():
        return []
    try:
        found = read_conversations([FolderExamples(path=path)]).examples
    except GroundupError:
        return []
    found.sort(key=lambda example: text_id(example.messages[-1].content))
    return found


def _pieces(path: Path, tokenizer: Tokenizer, context: int, wanted: int) -> Iterator[tuple[list[int], list[bool]]]:
    """Text in pieces that begin as documents do; all tokens but BOS are trained."""
    from groundup.data.texts import general_texts

    size = min(_PIECE, context) - 1
    for text in general_texts(path, _BYTES_A_TOKEN * wanted, split="train"):
        ids = tokenizer.encode(text)
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            yield [tokenizer.bos_id, *piece], [False] + [True] * len(piece)
