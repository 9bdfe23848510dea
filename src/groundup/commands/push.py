"""`groundup push`: upload a model directory to the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count

EXAMPLE = "groundup push runs/notes my-company/notes"


class PushConfig(Config):
    """Settings of `groundup push`. HF_TOKEN has the access token, and HF_ENDPOINT the URL of another server."""

    model: Path = setting(help="model directory, or a run (uses its newest model)", positional=True)
    repository: str = setting(help="name of the repository, ORG/NAME; created if it does not exist", positional=True)
    public: bool = setting(False, help="make a new repository public", flag=True)
    revision: str | None = setting(None, help="branch of the repository; default: main", flag=True)
    message: str = setting("Upload a model with groundup", help="message of the commit", flag=True)


def run(
    config: PushConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> str:
    """Verify and upload a model: weights, config, tokenizer, chat template, license files and model card.

    Args:
        config: settings of the command.
        console: output for notes. Default: the terminal.
        on_text: function that receives the URL of the commit.
        json_lines: whether to write the URL as a JSON object.

    Returns:
        The URL of the commit.

    Raises:
        DataError: the model does not exist.
        ConfigError: the name of the repository is invalid.
        FormatError: a file of the model is damaged.
        ResourceError: the upload failed.
    """
    from groundup.hub.push import push_model, uploaded_files
    from groundup.hub.resolve import is_classifier, resolve_classifier, resolve_model

    console = console or Console()
    directory = resolve_classifier(config.model) if is_classifier(config.model) else resolve_model(config.model)
    size = sum(path.stat().st_size for path in uploaded_files(directory))
    console.note(f"Uploading {directory} ({format_count(size)}B) to {config.repository}.")
    url = push_model(
        directory,
        config.repository,
        private=not config.public,
        revision=config.revision,
        message=config.message,
    )
    if on_text is not None:
        on_text((json.dumps({"url": url}) if json_lines else url) + "\n")
    return url
