"""Replay data: text or conversations that are mixed into fine-tuning examples to reduce catastrophic forgetting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.artifact import ARTIFACT, read_intact
from groundup.core.errors import ConfigError, DataError, GroundupError
from groundup.data import table_identity

if TYPE_CHECKING:
    from groundup.core.types import Example
    from groundup.data.conversations.encoded import Encoded
    from groundup.tokenizer import ChatTemplate, Tokenizer

_SEQUENCE_TOKENS = 512  # Maximum number of tokens per sequence of replayed text.
_BYTES_PER_TOKEN = 6  # Upper bound on the mean bytes per token of a tokenizer, so that enough text is read.


def replay_identity(path: Path) -> str:
    """Return a digest that changes if the replay data changes."""
    return read_intact(path).digest if (path / ARTIFACT).is_file() else table_identity(path)


def replay_examples(
    path: Path | None,
    share: float,
    examples: Sequence[Encoded],
    template: ChatTemplate,
    tokenizer: Tokenizer,
    context: int,
) -> list[Encoded]:
    """Return replay examples that have the fraction `share` of all trained tokens.

    Args:
        path: Path of a corpus, token shards, a table of conversations, or text files.
        share: Fraction of all trained tokens that come from the replay examples.
        examples: Examples of the fine-tuning run.
        template: Chat template.
        tokenizer: Tokenizer of the model.
        context: Maximum number of tokens per example.

    Raises:
        ConfigError: `share` is positive, but `path` is None.
        DataError: The replay data has too few tokens.
    """
    from groundup.data.conversations.encoded import to_arrays, trained_tokens

    if not share:
        return []
    if path is None:
        raise ConfigError(
            f"replay_fraction = {share:g}, but replay is not set",
            fix="Set the text or conversations to mix in: --set replay=FOLDER.",
        )
    wanted = round(share / (1 - share) * trained_tokens(examples))
    taken: list[Encoded] = []
    found = 0
    conversations = _conversations(path)
    encoded = (template.encode_labeled(example.messages) for example in conversations)
    for ids, trained in encoded if conversations else _sequences(path, tokenizer, context, wanted):
        if found >= wanted:
            break
        if len(ids) <= context:
            taken.append(to_arrays(ids, trained))
            found += sum(trained)
    if found < wanted / 2:  # The model would memorize a small amount of data that is repeated.
        raise DataError(
            f"{path} has {found:,} tokens, but a replay fraction of {share:.0%} needs {wanted:,} tokens",
            fix="Use more text, or a smaller fraction: replay_fraction = 0.05.",
        )
    return taken


def _conversations(path: Path) -> list[Example]:
    """Return the conversations of a table in random order. The list is empty if `path` is not such a table."""
    from groundup.core.types import text_id
    from groundup.data import read_conversations
    from groundup.data.conversations.reading import FolderExamples

    if (path / ARTIFACT).is_file():
        return []
    try:
        found = read_conversations([FolderExamples(path=path)]).examples
    except GroundupError:
        return []
    found.sort(key=lambda example: text_id(example.messages[-1].content))
    return found


def _sequences(path: Path, tokenizer: Tokenizer, context: int, wanted: int) -> Iterator[tuple[list[int], list[bool]]]:
    """Yield sequences of text that start with BOS, each with a mask of the trained tokens (all except BOS)."""
    from groundup.data.texts import general_texts

    size = min(_SEQUENCE_TOKENS, context) - 1
    for text in general_texts(path, _BYTES_PER_TOKEN * wanted, split="train"):
        ids = tokenizer.encode(text)
        for start in range(0, len(ids), size):
            piece = ids[start : start + size]
            yield [tokenizer.bos_id, *piece], [False] + [True] * len(piece)
