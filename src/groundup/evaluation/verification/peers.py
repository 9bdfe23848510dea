"""Engines of others that read what we write: llama.cpp and transformers, each optional, each in its own process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.core.console import visible
from groundup.core.errors import FormatError

Engine = Literal["llama.cpp", "transformers"]
_PACKAGES: dict[Engine, tuple[str, str]] = {
    "llama.cpp": ("llama_cpp", "llama-cpp"),  # what is imported; which extra of ours installs it
    "transformers": ("transformers", "transformers"),
}
_LAST_WORDS = 1500  # characters
_ERROR = re.compile(r"[\w.]+(Error|Exception): ")


class PeerError(FormatError):
    """An engine of others that did not take the model."""


def missing(engine: Engine) -> str:
    """How to get an engine that is not installed; empty where it is."""
    package, extra = _PACKAGES[engine]
    return "" if find_spec(package) else f"{engine} is not installed: pip install 'groundup[{extra}]'"


class Peer:
    """A `Runner` whose model is run by another engine. Close it when done (a context manager does).

    Raises:
        PeerError: the engine does not load the model, or dies on the way; with its last words.
    """

    def __init__(self, engine: Engine, path: Path, *, tokens: int, name: str = "") -> None:
        """Start the engine.

        Args:
            path: a GGUF file for llama.cpp, a model directory for transformers.
            tokens: the most that it will be asked to read at once.
            name: in tables; default: the engine's.
        """
        self.name = name or engine
        self._path = path
        self._open = ExitStack()
        said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - the stack closes it
        self._said = self._open.enter_context(said)
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = self._open.enter_context(
            subprocess.Popen(
                # -P: what lies in the current directory, beside a stranger's model perhaps, is not imported.
                [sys.executable, "-P", "-m", "groundup.evaluation.verification.worker", engine, str(path), str(tokens)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=os.environ | offline,
            )
        )
        self._answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._open.close()

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Scores of the next token after each id: (T, V)."""
        self._ask(do="logits", ids=list(ids))
        header = self._answer()
        data = bytearray(header["bytes"])
        view, filled = memoryview(data), 0
        assert self._process.stdout is not None
        while filled < len(data):
            count = self._process.stdout.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._died()
            filled += count
        return torch.frombuffer(data, dtype=torch.float32).view(*header["shape"])

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The likeliest tokens after `ids`."""
        self._ask(do="greedy", ids=list(ids), count=count)
        return list(self._answer()["ids"])

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing special in it or around it."""
        self._ask(do="encode", text=text)
        return list(self._answer()["ids"])

    def _ask(self, **request: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _died(self) -> PeerError:
        code = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read()[-_LAST_WORDS:].splitlines() if line.strip()]
        self.close()
        # Some messages go on after the line that names the error (transformers: how to upgrade).
        errors = [line for line in lines if _ERROR.match(line)] or lines
        return PeerError(
            f"{self.name} on {self._path.name}: " + (visible(errors[-1]) if errors else f"ended with code {code}"),
            rule="what groundup reads and writes is checked with this engine, too, where it is installed",
            fix="If the engine is older than this kind of model, upgrade it, or leave the check out: --no-gate.",
        )
