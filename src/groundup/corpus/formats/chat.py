"""Read chat exports of messengers and AI assistants: the sender, the text and the time of each message.

This module reads the text export of WhatsApp. The date format of this export depends on the language of the phone. The
module also reads the JSON exports of Telegram, Slack, Discord (DiscordChatExporter), Facebook, Instagram, ChatGPT and
Claude. Some of these formats are undocumented and were inferred from example files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, BinaryIO

from groundup.corpus.formats.base import Extracted, Found, ReaderContext, Unreadable
from groundup.corpus.formats.plain import text_blocks

# Time stamp at the start of a message, such as "[24/12/2023, 18:05:11] ", "12/24/23, 6:05 PM - ", "24.12.23, 18:05 - ",
# ...
_STAMP = (
    r"[\u200e\u200f\u202a\u202c]*\[?(?P<date>\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\.?),?[ \u00a0\u202f]+(?:\w{2,3} )?"
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.]\d{2})?"
    r"(?:[ \u00a0\u202f]?(?P<half>[AaPp])\.?[ \u00a0\u202f]?[Mm]\.?)?(?:\] | [-–] )[\u200e\u200f]*"
)
_MESSAGE = re.compile(_STAMP + r"(?:(?P<name>[^:\n]{1,60}): )?(?P<text>[^\n]*)")
# Placeholder text for an attached file in several languages, such as <Media omitted> or IMG-1.jpg (file attached).
_MEDIA_PLACEHOLDER = re.compile(
    r"[\u200e\u200f]*(?:<[^<>\n]{1,60}>|\S{1,60}\.(?:jpe?g|png|gif|webp|mp4|opus|m4a|vcf|pdf)(?: \([^()\n]{1,60}\))?"
    r"|[^\n]{1,30} (?:omitted|weggelassen|omessi|omesso|omitido|omitida|omis|omise|absente))\s*"
)
_MARKS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SLACK_LINK = re.compile(r"<(?:[^<>|]{1,2000}\|)?([^<>|]{1,2000})>")
_HEAD_LINES = 20
_MAX_PAUSE = 60  # maximum number of minutes between two messages of one conversation


@dataclass(frozen=True, slots=True)
class Utterance:
    """A message of a chat.

    Attributes:
        name: Name of the sender.
        text: Text of the message.
        minute: Time in minutes since an arbitrary start, or None if the export does not contain the time.
    """

    name: str
    text: str
    minute: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True, slots=True)
class Chat:
    """The messages of one chat.

    Attributes:
        turns: The messages in order.
        began: Start of the chat in ISO 8601, or "" if the start is unknown.
    """

    turns: Sequence[Utterance]
    began: str = ""

    def __str__(self) -> str:
        return "\n".join(map(str, self.turns))


def is_messenger_export(start: str) -> bool:
    """Return whether a text is a WhatsApp export.

    Of the first 20 lines, at least three must start with a date and time, and at least two must also contain the name
    of a sender.
    """
    found = [match for line in start.splitlines()[:_HEAD_LINES] if (match := _MESSAGE.fullmatch(line))]
    return len(found) >= 3 and sum(match["name"] is not None for match in found) >= 2


def read_chat(path: str, stream: BinaryIO, _: ReaderContext) -> Found:
    """Yield the text of a WhatsApp export without system messages. A long chat is yielded in several pieces."""
    for number, block in enumerate(text_blocks(stream)):
        text = "\n".join(map(str, _turns(block.splitlines())))
        if text:
            yield Extracted(path if number == 0 else f"{path}+{number}", text)
        else:
            yield Unreadable(path, "no messages", block[:200])


def messenger_export(stream: BinaryIO) -> Chat:
    """Read a WhatsApp export as one chat."""
    return Chat(list(_turns(line for block in text_blocks(stream) for line in block.splitlines())))


def _turns(lines: Iterable[str]) -> Iterator[Utterance]:
    name, minute, said = "", 0, list[str]()
    day, date = 0, ""  # `day` counts the changes of the date, because the date format is ambiguous (day or month first)
    for line in lines:
        message = _MESSAGE.fullmatch(line)
        if message is None:
            said.append(line)
            continue
        if name:
            yield Utterance(name, "\n".join(said), minute)
        day, date = day + (message["date"] != date), message["date"]
        minute = 24 * 60 * day + _minute_of_day(message)
        name = (
            ""
            if message["name"] is None or _MEDIA_PLACEHOLDER.fullmatch(message["text"])
            else _MARKS.sub("", message["name"])
        )
        said = [_MARKS.sub("", message["text"])]
    if name:
        yield Utterance(name, "\n".join(said), minute)


def _minute_of_day(message: re.Match[str]) -> int:
    hour = int(message["hour"])
    if message["half"]:
        hour = hour % 12 + 12 * (message["half"] in "pP")
    return 60 * hour + int(message["minute"])


def conversations_of(chat: Chat) -> Iterator[Sequence[Utterance]]:
    """Split a chat into conversations. A new conversation starts after an hour without messages."""
    first = 0
    for place, (before, after) in enumerate(pairwise(chat.turns), start=1):
        if before.minute is not None and after.minute is not None and after.minute - before.minute > _MAX_PAUSE:
            yield chat.turns[first:place]
            first = place
    if chat.turns:
        yield chat.turns[first:]


def conversations(value: Any) -> Iterator[Chat] | None:
    """Return the chats of a JSON export, or None if the value is not a known chat export."""
    for matches, read in _EXPORTS:
        if matches(value):
            return read(value)
    return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _has(values: Any, *names: str) -> bool:
    """Return whether `values` is a list of dicts, of which the first five contain all these keys."""
    found = _dicts(values)[:5]
    return bool(found) and all(all(name in each for name in names) for each in found)


def _at(value: Any, *names: str) -> Any:
    """Return the value at a path of keys in nested dicts, or None if a key is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _chat(turns: Iterable[tuple[Any, Any, datetime | None]], began: str = "") -> Chat:
    """Create a chat from tuples (name, text, time). By default, the chat began at the time of its first message."""
    turns = [turn for turn in turns if isinstance(turn[1], str) and turn[1].strip()]
    began = began or next((time.isoformat() for _, _, time in turns if time), "")
    return Chat([Utterance(str(name or "unknown"), text.strip(), _minutes(time)) for name, text, time in turns], began)


def _minutes(time: datetime | None) -> float | None:
    return time.timestamp() / 60 if time else None


def _time(value: Any) -> datetime | None:
    """Parse a Unix time in seconds or an ISO 8601 time (default: UTC). Return None if the value is not a time."""
    try:
        if isinstance(value, str) and not value.replace(".", "").isdecimal():
            time = datetime.fromisoformat(value)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
        return datetime.fromtimestamp(float(value), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _is_telegram(value: Any) -> bool:
    return isinstance(value, dict) and (
        (_has(value.get("messages"), "id", "type", "date") and "type" in value)
        or (isinstance(value.get("chats"), dict) and "list" in value["chats"])
    )


def _telegram(value: dict[str, Any]) -> Iterator[Chat]:
    for chat in _dicts(value["chats"]["list"]) if "chats" in value else [value]:
        messages = [each for each in _dicts(chat.get("messages")) if each.get("type") == "message"]
        yield _chat((each.get("from"), _rich(each.get("text")), _time(each.get("date"))) for each in messages)


def _rich(text: Any) -> str:
    """Return the text of a Telegram message.

    Telegram stores the text as a string, or as a list of strings and formatted parts.
    """
    parts = text if isinstance(text, list) else [text]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(part for part in texts if isinstance(part, str))


def _is_slack(value: Any) -> bool:
    return _has(value, "type", "ts") and any("text" in each for each in _dicts(value)[:5])


def _slack(value: list[Any]) -> Iterator[Chat]:
    said = [
        each for each in _dicts(value) if each.get("subtype") in (None, "thread_broadcast", "bot_message", "me_message")
    ]
    yield _chat((_slack_name(each), _slack_text(each.get("text")), _time(each.get("ts"))) for each in said)


def _slack_name(message: dict[str, Any]) -> Any:
    profile = message.get("user_profile")
    names = (_at(profile, "display_name"), _at(profile, "real_name"), message.get("username"), message.get("user"))
    return next((name for name in names if name), None)


def _slack_text(text: Any) -> str:
    plain = _SLACK_LINK.sub(r"\1", text) if isinstance(text, str) else ""
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _is_discord(value: Any) -> bool:
    return (
        isinstance(value, dict) and "channel" in value and _has(value.get("messages"), "timestamp", "content", "author")
    )


def _discord(value: dict[str, Any]) -> Iterator[Chat]:
    messages = _dicts(value["messages"])
    yield _chat((_author(each.get("author")), each.get("content"), _time(each["timestamp"])) for each in messages)


def _author(author: Any) -> Any:
    return _at(author, "nickname") or _at(author, "name")


def _is_messenger(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "participants" in value
        and _has(value.get("messages"), "sender_name", "timestamp_ms")
    )


def _messenger(value: dict[str, Any]) -> Iterator[Chat]:
    messages = _dicts(value["messages"])[::-1]  # the export starts with the newest message
    yield _chat((each.get("sender_name"), each.get("content"), _milliseconds(each)) for each in messages)


def _milliseconds(message: dict[str, Any]) -> datetime | None:
    stamp = message.get("timestamp_ms")
    return _time(stamp / 1000) if isinstance(stamp, int) else None


def _is_chatgpt(value: Any) -> bool:
    chats = _chats(value)
    return _has(chats, "mapping") and "current_node" in chats[0] and isinstance(chats[0]["mapping"], dict)


def _chats(value: Any) -> list[dict[str, Any]]:
    """Return the conversations of an export as a list, even if the export is a single conversation."""
    return _dicts([value] if isinstance(value, dict) else value)


def _chatgpt(value: Any) -> Iterator[Chat]:
    for chat in _chats(value):
        mapping, began = chat.get("mapping"), _time(chat.get("create_time"))
        turns = _branch(mapping, chat.get("current_node")) if isinstance(mapping, dict) else []
        yield _chat(((role, text, None) for role, text in turns), began.isoformat() if began else "")


def _branch(mapping: dict[str, Any], last: Any) -> list[tuple[Any, Any]]:
    """Return the role and text of each message on the path from the root of the message tree to `last`."""
    turns: list[tuple[Any, Any]] = []
    seen: set[str] = set()
    # If the current message is unknown, use the last message in the file.
    if not isinstance(last, str) or last not in mapping:
        last = next(reversed(mapping), None)
    while isinstance(last, str) and last not in seen and isinstance(node := mapping.get(last), dict):
        seen.add(last)
        role, parts = _at(node, "message", "author", "role"), _at(node, "message", "content", "parts")
        if role in ("user", "assistant") and isinstance(parts, list):
            turns.append((role, "\n".join(part for part in parts if isinstance(part, str))))
        last = node.get("parent")
    return turns[::-1]


def _is_claude(value: Any) -> bool:
    return _has(value, "chat_messages")


def _claude(value: list[Any]) -> Iterator[Chat]:
    for chat in _dicts(value):
        said = ((each.get("sender"), each.get("text")) for each in _dicts(chat.get("chat_messages")))
        turns = (("user" if name == "human" else name, text, None) for name, text in said)
        yield _chat(turns, str(chat.get("created_at", "")))


_EXPORTS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Iterator[Chat]]], ...] = (
    (_is_telegram, _telegram),
    (_is_slack, _slack),
    (_is_discord, _discord),
    (_is_messenger, _messenger),
    (_is_chatgpt, _chatgpt),
    (_is_claude, _claude),
)
