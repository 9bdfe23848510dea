"""Talking to a model in the terminal: the session and what it remembers, the commands, the screen."""

from groundup.chat.session import Session, Settings, Turn
from groundup.chat.terminal import Terminal
from groundup.inference.prompting import ChatFormat, PromptFormat, TextFormat

__all__ = ["ChatFormat", "PromptFormat", "Session", "Settings", "Terminal", "TextFormat", "Turn"]
