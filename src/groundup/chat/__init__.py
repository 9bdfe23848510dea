"""Chat in the terminal: the conversation, its commands, and input and output on the terminal."""

from groundup.chat.session import Session, Settings, Turn
from groundup.chat.terminal import Terminal
from groundup.inference.prompting import ChatFormat, PromptFormat, TextFormat

__all__ = ["ChatFormat", "PromptFormat", "Session", "Settings", "Terminal", "TextFormat", "Turn"]
