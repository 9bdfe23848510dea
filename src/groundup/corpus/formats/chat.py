"""Chats that messengers and assistants export: to one "name: text" a turn.

Read are the text export of WhatsApp (whose dates differ by the phone's language), and the JSON of Telegram, Slack,
Discord (as DiscordChatExporter writes it), Facebook and Instagram, ChatGPT and Claude. Not all are documented: what is
known comes from files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

from groundup.corpus.formats.base import Extracted, Found, Reading, Unreadable
from groundup.corpus.formats.plain import text_blocks

# The time before a message: "[24/12/2023, 18:05:11] ", "12/24/23, 6:05 PM - ", "24.12.23, 18:05 - ", ...
_STAMP = (
    r"[\u200e\u200f\u202a\u202c]*\[?(?P<date>\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\.?),?[ \u00a0\u202f]+(?:\w{2,3} )?"
    r"\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[ \u00a0\u202f]?[AaPp]\.?[ \u00a0\u202f]?[Mm]\.?)?(?:\] | [-–] )[\u200e\u200f]*"
)
_MESSAGE = re.compile(_STAMP + r"(?:(?P<name>[^:\n]{1,60}): )?(?P<text>[^\n]*)")
_OMITTED = re.compile(  # what stands in the place of a picture, in whatever language: <Media omitted>, IMG-1.jpg (...)
    r"[\u200e\u200f]*(?:<[^<>\n]{1,60}>|\S{1,60}\.(?:jpe?g|png|gif|webp|mp4|opus|m4a|vcf|pdf)(?: \([^()\n]{1,60}\))?"
    r"|[^\n]{1,30} (?:omitted|weggelassen|omessi|omesso|omitido|omitida|omis|omise|absente))\s*"
)
_MARKS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SLACK_LINK = re.compile(r"<(?:[^<>|]{1,2000}\|)?([^<>|]{1,2000})>")
_HEAD_LINES = 20


def is_messenger_export(start: str) -> bool:
    """Whether a text begins like WhatsApp's export: three of its first lines are dated, and name who wrote."""
    found = [match for line in start.splitlines()[:_HEAD_LINES] if (match := _MESSAGE.fullmatch(line))]
    return len(found) >= 3 and sum(match["name"] is not None for match in found) >= 2


def read_chat(path: str, stream: BinaryIO, _: Reading) -> Found:
    """A chat as text, in pieces if it is long; the notes of the program itself (who joined, what is encrypted) go."""
    for number, block in enumerate(text_blocks(stream)):
        text = "\n".join(_turns(block.splitlines()))
        if text:
            yield Extracted(path if number == 0 else f"{path}+{number}", text)
        else:
            yield Unreadable(path, "no messages", block[:200])


def _turns(lines: Iterable[str]) -> Iterator[str]:
    turn: list[str] = []
    for line in lines:
        message = _MESSAGE.fullmatch(line)
        if message is None:
            if turn:
                turn.append(line)
            continue
        if turn:
            yield "\n".join(turn)
        said = message["name"] is not None and not _OMITTED.fullmatch(message["text"])
        turn = [_MARKS.sub("", f"{message['name']}: {message['text']}")] if said else []
    if turn:
        yield "\n".join(turn)


Conversation = tuple[str, str]  # its text, and when it began


def conversations(value: Any) -> Iterator[Conversation] | None:
    """The conversations of a JSON export, each turn as "name: text"; None if the value is no export that is known."""
    for recognizes, read in _EXPORTS:
        if recognizes(value):
            return read(value)
    return None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _has(values: Any, *names: str) -> bool:
    """Whether these are mappings, the first few of which have all these fields."""
    found = _dicts(values)[:5]
    return bool(found) and all(all(name in each for name in names) for each in found)


def _at(value: Any, *names: str) -> Any:
    """The value at the end of a path of fields, or None."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _joined(turns: Iterable[tuple[Any, Any]]) -> str:
    return "\n".join(
        f"{name or 'unknown'}: {text.strip()}" for name, text in turns if isinstance(text, str) and text.strip()
    )


def _day(seconds: Any) -> str:
    try:
        return datetime.fromtimestamp(float(seconds), UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _is_telegram(value: Any) -> bool:
    return isinstance(value, dict) and (
        (_has(value.get("messages"), "id", "type", "date") and "type" in value)
        or (isinstance(value.get("chats"), dict) and "list" in value["chats"])
    )


def _telegram(value: dict[str, Any]) -> Iterator[Conversation]:
    chats = _dicts(value["chats"]["list"]) if "chats" in value else [value]
    for chat in chats:
        messages = [each for each in _dicts(chat.get("messages")) if each.get("type") == "message"]
        text = _joined((each.get("from"), _rich(each.get("text"))) for each in messages)
        yield text, str(messages[0].get("date", "")) if messages else ""


def _rich(text: Any) -> str:
    """Telegram's text: a string, or a list of strings and of marked ones."""
    parts = text if isinstance(text, list) else [text]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "".join(part for part in texts if isinstance(part, str))


def _is_slack(value: Any) -> bool:
    return isinstance(value, list) and _has(value, "type", "ts") and any("text" in each for each in _dicts(value)[:5])


def _slack(value: list[Any]) -> Iterator[Conversation]:
    said = [
        each for each in _dicts(value) if each.get("subtype") in (None, "thread_broadcast", "bot_message", "me_message")
    ]
    yield (
        _joined((_slack_name(each), _slack_text(each.get("text"))) for each in said),
        _day(said[0].get("ts")) if said else "",
    )


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


def _discord(value: dict[str, Any]) -> Iterator[Conversation]:
    messages = _dicts(value["messages"])
    text = _joined((_author(each.get("author")), each.get("content")) for each in messages)
    yield text, str(messages[0]["timestamp"])


def _author(author: Any) -> Any:
    return _at(author, "nickname") or _at(author, "name")


def _is_messenger(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "participants" in value
        and _has(value.get("messages"), "sender_name", "timestamp_ms")
    )


def _messenger(value: dict[str, Any]) -> Iterator[Conversation]:
    messages = _dicts(value["messages"])[::-1]  # the newest stand first
    started = messages[0].get("timestamp_ms")
    text = _joined((each.get("sender_name"), each.get("content")) for each in messages)
    yield text, _day(started / 1000) if isinstance(started, int) else ""


def _is_chatgpt(value: Any) -> bool:
    return isinstance(value, list) and _has(value, "mapping") and isinstance(_dicts(value)[0]["mapping"], dict)


def _chatgpt(value: list[Any]) -> Iterator[Conversation]:
    for chat in _dicts(value):
        mapping = chat.get("mapping")
        yield (
            _joined(_branch(mapping, chat.get("current_node"))) if isinstance(mapping, dict) else "",
            _day(chat.get("create_time")),
        )


def _branch(mapping: dict[str, Any], last: Any) -> list[tuple[Any, Any]]:
    """The turns that lead to the answer that was kept; others were written over."""
    turns: list[tuple[Any, Any]] = []
    seen: set[str] = set()
    if not isinstance(last, str) or last not in mapping:  # then the last one written, and what led to it
        last = next(reversed(mapping), None)
    while isinstance(last, str) and last not in seen and isinstance(node := mapping.get(last), dict):
        seen.add(last)
        role, parts = _at(node, "message", "author", "role"), _at(node, "message", "content", "parts")
        if role in ("user", "assistant") and isinstance(parts, list):
            turns.append((role, "\n".join(part for part in parts if isinstance(part, str))))
        last = node.get("parent")
    return turns[::-1]


def kept_turns(chat: dict[str, Any]) -> list[dict[str, str]] | None:
    """The turns of one conversation of ChatGPT's export, as role and content; None where it is none."""
    mapping = chat.get("mapping")
    if not (isinstance(mapping, dict) and "current_node" in chat):
        return None
    return [{"role": role, "content": text} for role, text in _branch(mapping, chat["current_node"]) if text.strip()]


def _is_claude(value: Any) -> bool:
    return isinstance(value, list) and _has(value, "chat_messages")


def _claude(value: list[Any]) -> Iterator[Conversation]:
    for chat in _dicts(value):
        said = ((each.get("sender"), each.get("text")) for each in _dicts(chat.get("chat_messages")))
        turns = (("user" if name == "human" else name, text) for name, text in said)
        yield _joined(turns), str(chat.get("created_at", ""))


_EXPORTS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Iterator[Conversation]]], ...] = (
    (_is_telegram, _telegram),
    (_is_slack, _slack),
    (_is_discord, _discord),
    (_is_messenger, _messenger),
    (_is_chatgpt, _chatgpt),
    (_is_claude, _claude),
)
