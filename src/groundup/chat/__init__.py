"""Talking to a model in the terminal: the session and what it remembers, the commands, the screen."""

from groundup.chat.formats import ChatFormat, PromptFormat, TextFormat
from groundup.chat.session import Session, Settings, Turn
from groundup.chat.terminal import Terminal

__all__ = ["ChatFormat", "PromptFormat", "Session", "Settings", "Terminal", "TextFormat", "Turn"]
