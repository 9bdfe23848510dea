"""Conversations to tune on: from the rows of a table to messages that a chat template renders."""

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
from groundup.data.tables import alike, read_table, spread

JOINED = "turns of one role in a row joined"
CUT_END = "turns after the last answer cut"
CUT_START = "answers before the first question cut"


class SourceRules(ConversationRules):
    """What a source of examples has beside the keys of a source of text."""

    limit: int | None = setting(None, help="take at most so many rows, from everywhere in the table", gt=0)


class FolderExamples(FolderSource, SourceRules):
    """A file or folder on this machine, and where its conversations are."""


class PackageExamples(PackageSource, SourceRules):
    """Files inside a pinned archive of a package index, and where their conversations are."""


def _as_sources(data: Any) -> Any:
    if isinstance(data, str):
        return [{"kind": "folder", "path": data}]
    if isinstance(data, list | tuple):
        return [{"kind": "folder", "path": source} if isinstance(source, str) else source for source in data]
    return data


ExampleSources = Annotated[
    list[Annotated[FolderExamples | PackageExamples, Field(discriminator="kind")]], BeforeValidator(_as_sources)
]
"""Source tables of a recipe; the path of a file or folder alone stands for a source of kind folder."""


@dataclass(slots=True)
class Conversations:
    """What was read.

    Attributes:
        examples: each ends with an assistant's turn; roles alternate, after a system message if there is one.
        columns: how the tables were read, in words.
        rows: how many there were in all.
        dropped: reason -> rows that gave no example.
        changed: what was done -> examples that it was done to.
    """

    examples: list[Example] = field(default_factory=list)
    columns: str = ""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    @property
    def sentence(self) -> str:
        """All of it in one sentence, for a person."""
        said = f"I read {_rows(self.rows)} as {self.columns}"
        if self.dropped:
            reasons = self.dropped.most_common()
            told = reasons[0][0] if len(reasons) == 1 else ", ".join(f"{n:,} {reason}" for reason, n in reasons)
            said += f"; {_rows(self.dropped.total())} dropped: {told}"
        return said + "".join(f"; {what} in {n:,}" for what, n in sorted(self.changed.items()))


def _rows(count: int) -> str:
    return f"{count:,} row" + "s" * (count != 1)


class RejectedError(Exception):
    """A row gives no example; the reason is what it is counted under."""


def read_conversations(
    sources: Sequence[FolderExamples | PackageExamples],
    rules: ConversationRules | None = None,
    *,
    console: Console | None = None,
) -> Conversations:
    """Read all sources, each with its own columns; examples that say the same are kept once.

    Args:
        rules: for sources that have none of their own.

    Raises:
        ConfigError, DataError, DownloadError: see `read_table` and `find_columns`; DataError also if nothing is left.
    """
    found, seen, read_as = Conversations(), set[Example](), dict[str, None]()
    for source in sources:
        table = read_table([source], console=console)
        columns = find_columns(table, _own_rules(source) or rules or ConversationRules())
        read_as[str(columns)] = None
        rows = spread(table.rows, source.limit) if source.limit else table.rows
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
            found.sentence,
            rule="tuning needs at least one prompt with its response",
            fix='Say where they are: prompt = "{COLUMN}", response = "{COLUMN}", or messages = "COLUMN".',
        )
    return found


def split_by_hash(
    examples: Sequence[Example], *, fraction: float = 0.1, most: int = 1000
) -> tuple[list[Example], list[Example]]:
    """(train, held out): which is which follows from the examples alone, not from their order.

    Examples of one question fall on one side, so that no held-out answer was seen with its question; only where each
    question has more examples than are to be held out, they fall on both.

    Raises:
        DataError: fewer than two examples.
    """
    if len(examples) < 2:
        raise DataError(
            f"{len(examples)} example" + "s" * (len(examples) != 1),
            rule="training and testing need one each, at least",
            fix="Add examples, or give others to test on with --test.",
        )
    wanted = min(most, max(1, round(fraction * len(examples))))
    held = _whole_groups([alike(question_of(example)) for example in examples], wanted)
    held = held or _whole_groups(["\0".join(m.content for m in example.messages) for example in examples], wanted)
    train = [example for place, example in enumerate(examples) if place not in held]
    return train, [example for place, example in enumerate(examples) if place in held]


def _whole_groups(keys: Sequence[str], wanted: int) -> set[int]:
    """Places of about so many examples, and not more, that leave no other with the same key outside."""
    groups: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(_hash([key]), []).append(place)
    drawn = set[int]()
    for _, places in sorted(groups.items()):
        if len(drawn) + len(places) <= wanted:
            drawn.update(places)
    return drawn


def without_prompts_of(tested: Sequence[Example], found: Conversations) -> list[Example]:
    """The examples whose question is not one of those to test on; the others are counted as dropped.

    Questions that differ in case or white space only are alike.
    """
    known = {alike(question_of(example)) for example in tested}
    learned = [example for example in found.examples if alike(question_of(example)) not in known]
    if len(learned) < len(found.examples):
        found.dropped["prompt is in the test data"] += len(found.examples) - len(learned)
    if not learned:
        raise DataError(
            found.sentence,
            rule="what is tested on must not be trained on",
            fix="Give test data that differ from the examples, or none.",
        )
    return learned


def question_of(example: Example) -> str:
    """What the last answer answers: all that was said before it, but for a system message."""
    return "\n".join(message.content for message in example.messages[:-1] if message.role != "system")


@dataclass(frozen=True, slots=True)
class ConversationSplit:
    """Conversations to train on and to test on.

    Attributes:
        found: What was read, and how.
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
        """Read conversations; without test data, some are held out. No prompt of a test example is trained.

        Raises:
            DataError: there are none.
            ConfigError: columns that are not there.
        """
        found = read_conversations(data, rules, console=console)
        if test:
            held_out = read_conversations(test, rules, console=console).examples
            train = without_prompts_of(held_out, found)
        else:
            train, held_out = split_by_hash(found.examples, fraction=test_fraction, most=max_test)
        console.note(f"{found.sentence}.")
        return cls(train, held_out, found)

    @property
    def questions(self) -> list[str]:
        """The questions of the training conversations."""
        return [question_of(example) for example in self.train]


class InstructionSettings(ConversationRules):
    """Where conversations are, and how they are split and cut."""

    data: ExampleSources = setting(help="examples: a table of prompts and responses, or of messages", positional=True)
    test: ExampleSources = setting([], help="test examples; default: held out", flag=True)
    test_fraction: float = setting(0.1, help="share of the examples to hold out as a test set", gt=0, lt=1)
    test_examples: int = setting(1000, help="maximum number of examples to hold out", ge=1)
    replay: Path | None = setting(None, help="general text (a corpus, files) or conversations to mix in")
    replay_share: float = setting(
        0.0, help="share of the trained tokens that is mixed in, against forgetting", ge=0, lt=1
    )
    cut_long: bool = setting(False, help="cut examples that are longer than the context, instead of dropping them")

    def read(self, console: Console) -> ConversationSplit:
        """Read the conversations.

        Raises:
            DataError: There are none.
            ConfigError: Columns that are not there.
        """
        rules = ConversationRules(**self.model_dump(include=set(ConversationRules.model_fields)))
        return ConversationSplit.read(
            self.data, self.test, rules, test_fraction=self.test_fraction, max_test=self.test_examples, console=console
        )


def _hash(texts: Sequence[str]) -> int:
    data = json.dumps(texts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _own_rules(source: FolderExamples | PackageExamples) -> ConversationRules | None:
    given = source.model_dump(include=set(ConversationRules.model_fields), exclude_none=True)
    return ConversationRules(**given) if given else None


def _example(row: Mapping[str, Any], columns: Columns) -> tuple[Example, set[str]]:
    """The conversation of a row, and what was done to it.

    Raises:
        RejectedError: there is none.
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
    elif not any(roles):  # turns without names, or the names of two people: whoever begins is the user
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
    if isinstance(turn, list):  # the messages that one speaker sent in a row
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
    """System first if at all, then user and assistant in turn, the assistant last; `changes` says what that took.

    Raises:
        RejectedError: it takes more than joining and cutting.
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
