"""Upload of a model directory to the Hugging Face Hub, or to another server with the same interface."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

from groundup.core.artifact import ARTIFACT, read
from groundup.core.errors import ConfigError, FormatError, ResourceError
from groundup.core.files import write_text
from groundup.core.telemetry import disable_telemetry
from groundup.hub.integrity import verify
from groundup.hub.model_card import CARD, for_repository, model_card

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Other files, such as artifact.json, contain paths of this machine.
_FILES = (
    CARD,
    "LICENSE*",
    "NOTICE*",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "*.gguf",
)


def uploaded_files(directory: Path) -> list[Path]:
    """Return the files of a model directory that `push_model` uploads, in alphabetical order."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    return [path for path in files if any(fnmatch(path.name, pattern) for pattern in _FILES)]


def push_model(directory: Path, repository: str, *, private: bool, revision: str | None, message: str) -> str:
    """Verify a model directory and upload it in one commit. The repository is created if it does not exist.

    A model without a model card gets one. In the uploaded card, the examples load the model from the repository.

    Args:
        directory: Model directory.
        repository: Name of the repository, ORG/NAME.
        private: Whether a new repository is private. The visibility of an existing repository does not change.
        revision: Branch of the repository; default: its main branch.
        message: Message of the commit.

    Returns:
        The URL of the commit.

    Raises:
        ConfigError: The name is invalid, or huggingface_hub is not installed.
        FormatError: A file of the model is damaged.
        ResourceError: The server refuses the upload or cannot be reached.
    """
    if not _NAME.fullmatch(repository):
        raise ConfigError(
            f"repository = {repository}", rule="must be ORG/NAME", fix="Give a name such as my-company/support-model."
        )
    disable_telemetry()
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError(
            f"{repository}: huggingface_hub is not installed", fix="pip install 'groundup[hub]'"
        ) from None
    _require_undamaged(directory)
    _require_card(directory, repository)
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            hub.create_branch(repository, branch=revision, exist_ok=True)
        operations = [
            huggingface_hub.CommitOperationAdd(path.name, _content(path, repository))
            for path in uploaded_files(directory)
        ]
        commit = hub.create_commit(repository, operations, commit_message=message, revision=revision)
    except Exception as error:  # Depending on its version, huggingface_hub raises different types of errors.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ResourceError(
            f"{repository}: {lines[0][:200]}",
            rule="the upload failed",
            fix="Log in with `hf auth login` or set HF_TOKEN to a token with write access, and check the network.",
        ) from None
    return str(commit.commit_url)


def _content(path: Path, repository: str) -> Path | bytes:
    """Return what is uploaded: the file, or the model card with examples that load the model from the repository."""
    return for_repository(path.read_text(encoding="utf-8"), repository).encode() if path.name == CARD else path


def _require_undamaged(directory: Path) -> None:
    for found in verify(directory):
        for name, problem in found.damaged.items():
            raise FormatError(
                f"{directory}: {name}: {problem}",
                fix=f"Make the model again, or accept the changes: groundup model verify {directory} --accept",
            )


def _require_card(directory: Path, name: str) -> None:
    """Write a model card if it is missing."""
    if (directory / CARD).is_file() or not (directory / ARTIFACT).is_file():
        return
    made = read(directory)
    base = Path(made.facts["base"]) if "base" in made.facts else None
    write_text(directory / CARD, model_card(name, directory, made, made.facts, base))
