"""What the stages that talk share: a model with its chat template, and stdout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.core.console import Console

if TYPE_CHECKING:
    from groundup.hub.resolve import OpenedModel
    from groundup.tokenizer.chat import ChatTemplate


def open_chat_model(
    path: Path, device: str | None, console: Console, *, base: Path | None = None
) -> tuple[OpenedModel, ChatTemplate | None]:
    """Open the model that `path` means; its template is None where it has none, or one that cannot be used.

    Args:
        base: where an adapter's base lies now.

    Raises:
        DataError: no model there.
        FormatError: a damaged one, or one whose conversations come out otherwise than when it was written.
    """
    from groundup.hub.resolve import open_model

    opened = open_model(path, device=device, base=base)
    return opened, usable_template(opened, console)


def usable_template(opened: OpenedModel, console: Console) -> ChatTemplate | None:
    """The chat template of an opened model, or None, as `open_chat_model` tells."""
    from groundup.core.errors import ConfigError, FormatError
    from groundup.tokenizer import ChatTemplate, require_golden

    if opened.tokenizer.chat_template is None:
        return None
    try:
        template = ChatTemplate(opened.tokenizer)
    except (ConfigError, FormatError) as error:
        console.warn(f"{opened.directory}: its chat template cannot be used: {error.value}: {error.rule}")
        return None
    require_golden(opened.directory, template, opened.tokenizer)
    return template


def print_now(text: str) -> None:
    """Write to stdout, where somebody waits for it."""
    sys.stdout.write(text)
    sys.stdout.flush()
