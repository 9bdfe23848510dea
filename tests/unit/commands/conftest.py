"""Fixtures for fine-tuning: a run with a base model, and labeled paragraphs of real text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from groundup.commands.serve import API_KEY_VARIABLE
from groundup.core.artifact import begin
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer

# The command line starts the server in the same way.
SERVE = """
import json, sys
from groundup.core.config import load
from groundup.commands.serve import ServeConfig, run
run(load(ServeConfig, json.loads(sys.argv[1])), json_lines=True)
"""


@pytest.fixture(scope="module")
def run_directory(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    """Return the directory of a run whose base model has random weights."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    work = begin(directory / "base", "pretrain", {}, {})
    files = save_model(directory / "base", tiny_model(tokenizer.vocab_size), bos_id=0, eos_id=0)
    tokenizer.save(directory / "base")
    work.finish({}, files)
    return directory


@pytest.fixture(scope="module")
def paragraphs(real_documents: list[str]) -> list[tuple[str, str]]:
    """Return pairs of paragraph and document from the three longest documents, which have different topics."""
    longest = sorted(real_documents, key=len)[-3:]
    found = [(p.strip(), text.split("\n")[0].strip()) for text in longest for p in text.split("\n\n") if len(p) > 60]
    return list(dict(found).items())


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]:
    """Return a function that starts a server, and returns the process and the URL of the server."""
    return _serving


@contextmanager
def _serving(
    directory: Path, key: str | None = None, **settings: object
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    values = {"models": [str(directory)], "port": 0, "grace_seconds": 20, **settings}
    environment = os.environ | ({API_KEY_VARIABLE: key} if key else {})
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, json.dumps(values)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()
