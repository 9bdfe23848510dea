"""Exported chats as conversations. The exports are written manually in the formats of the apps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.core.errors import ConfigError
from groundup.core.types import Message
from groundup.data import ConversationSettings, read_conversations
from groundup.data.conversations.reading import FolderExamples

WHATSAPP = """\
12/24/23, 11:50 PM - Messages and calls are end-to-end encrypted.
12/24/23, 11:50 PM - Nora: Is the shop open tomorrow?
12/24/23, 11:51 PM - Nora: It is a Monday.
12/25/23, 12:10 AM - Desk: No, we are closed
until Wednesday.
12/25/23, 12:11 AM - Desk: <Media omitted>
12/25/23, 9:00 AM - Desk: Good morning!
12/25/23, 9:30 AM - Ole: Do you repair watches?
12/25/23, 9:31 AM - Desk: We do.
"""
TELEGRAM = {
    "name": "Desk",
    "type": "personal_chat",
    "id": 1,
    "messages": [
        {"id": 1, "type": "message", "date": "2024-01-05T10:00:00", "from": "Ana", "text": "Do you deliver?"},
        {"id": 2, "type": "message", "date": "2024-01-05T10:02:00", "from": "Desk", "text": ["Yes, ", "daily."]},
        {"id": 3, "type": "message", "date": "2024-01-06T10:00:00", "from": "Ana", "text": "And on Sunday?"},
        {"id": 4, "type": "message", "date": "2024-01-06T10:59:00", "from": "Desk", "text": "No."},
    ],
}
SLACK = [
    {"type": "message", "ts": "1704448800.1", "user": "U1", "text": "Where is the plan?"},
    {
        "type": "message",
        "ts": "1704448900.1",
        "user": "U2",
        "user_profile": {"real_name": "Desk"},
        "text": "In <https://a.example|the folder>.",
    },
]
DISCORD = {
    "channel": {"name": "help"},
    "messages": [
        {"timestamp": "2024-01-05T10:00:00.000+00:00", "content": "How do I reset it?", "author": {"name": "kim"}},
        {
            "timestamp": "2024-01-05T10:01:00.000+00:00",
            "content": "Hold the button.",
            "author": {"name": "d", "nickname": "Desk"},
        },
    ],
}


def conversations(path: Path, assistant: str | None = "Desk") -> list[list[tuple[str, str]]]:
    found = read_conversations([FolderExamples(kind="folder", path=path)], ConversationSettings(assistant=assistant))
    return [[(message.role, message.content) for message in example.messages] for example in found.examples]


def test_a_messenger_chat_is_split_after_an_hour_of_silence(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text(WHATSAPP, encoding="utf-8")
    assert conversations(tmp_path / "chat.txt") == [
        [("user", "Is the shop open tomorrow?\nIt is a Monday."), ("assistant", "No, we are closed\nuntil Wednesday.")],
        [("user", "Do you repair watches?"), ("assistant", "We do.")],
    ]


@pytest.mark.parametrize(
    ("export", "expected"),
    [
        (TELEGRAM, [("Do you deliver?", "Yes, daily."), ("And on Sunday?", "No.")]),
        (SLACK, [("Where is the plan?", "In the folder.")]),
        (DISCORD, [("How do I reset it?", "Hold the button.")]),
    ],
)
def test_json_exports(tmp_path: Path, export: object, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "export.json").write_text(json.dumps(export), encoding="utf-8")
    assert conversations(tmp_path / "export.json") == [
        [("user", question), ("assistant", answer)] for question, answer in expected
    ]


def test_a_folder_of_chats_is_read_completely(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"chat {number}.txt").write_text(WHATSAPP.replace("Monday", f"day {number}"), encoding="utf-8")
    assert len(conversations(tmp_path)) == 4  # the conversation about watches is a duplicate


def test_the_assistant_of_a_chat_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "chat.txt").write_text(WHATSAPP, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Desk \(3\), Nora \(2\), Ole \(1\).*assistant = 'Desk'"):
        conversations(tmp_path / "chat.txt", None)
    with pytest.raises(ConfigError, match=r"'Dessk': .*has only the speakers.*Did you mean 'Desk'"):
        conversations(tmp_path / "chat.txt", "Dessk")


def test_exports_of_assistants_have_roles(tmp_path: Path) -> None:
    chats = [
        {
            "created_at": "2024-01-05T10:00:00Z",
            "chat_messages": [{"sender": "human", "text": "Hi"}, {"sender": "assistant", "text": "Hello."}],
        }
    ]
    (tmp_path / "claude.json").write_text(json.dumps(chats), encoding="utf-8")
    assert conversations(tmp_path / "claude.json", None) == [[("user", "Hi"), ("assistant", "Hello.")]]


def test_a_speaker_in_a_table_can_be_named(tmp_path: Path) -> None:
    """Tables of dialogues have speakers, too; by default the first speaker is the user."""
    turns = [
        {"speaker": "Desk", "text": "Hello, what is it?"},
        {"speaker": "Eva", "text": "A leak."},
        {"speaker": "Desk", "text": "I come."},
    ]
    (tmp_path / "t.jsonl").write_text(json.dumps({"dialogue": turns}) + "\n", encoding="utf-8")
    found = read_conversations(
        [FolderExamples(kind="folder", path=tmp_path / "t.jsonl")], ConversationSettings(assistant="Desk")
    )
    assert found.examples[0].messages == (Message("user", "A leak."), Message("assistant", "I come."))
