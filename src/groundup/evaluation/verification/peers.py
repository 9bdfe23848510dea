"""Runners that run a model in llama.cpp or transformers for round-trip checks. Each engine has its own process."""

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
    # Each value is the name of the Python module, and the extra of groundup that installs it.
    "llama.cpp": ("llama_cpp", "llama-cpp"),
    "transformers": ("transformers", "transformers"),
}
_MAX_STDERR_CHARACTERS = 1500  # Number of characters at the end of stderr that are searched for an error message.
_ERROR = re.compile(r"[\w.]+(Error|Exception): ")


class PeerError(FormatError):
    """Raised if another engine rejects a model or crashes."""


def missing(engine: Engine) -> str:
    """Return a message on how to install an engine if it is not installed; otherwise an empty string."""
    package, extra = _PACKAGES[engine]
    return "" if find_spec(package) else f"{engine} is not installed: pip install 'groundup[{extra}]'"


class Peer:
    """A `Runner` that runs a model in another engine. Use a peer as a context manager, or call `close()`.

    Raises:
        PeerError: the engine cannot load the model, or it crashes. The message contains the error that the engine
            printed to stderr.
    """

    def __init__(self, engine: Engine, path: Path, *, tokens: int, name: str = "") -> None:
        """Start the engine.

        Args:
            engine: name of the engine.
            path: path of a GGUF file for llama.cpp, or of a model directory for transformers.
            tokens: maximum number of tokens per request.
            name: name that tables show; default: name of the engine.
        """
        self.name = name or engine
        self._path = path
        self._open = ExitStack()
        stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - the stack closes it
        self._stderr = self._open.enter_context(stderr)
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = self._open.enter_context(
            subprocess.Popen(
                # The option -P prevents imports from the current directory, which may contain an untrusted model.
                [sys.executable, "-P", "-m", "groundup.evaluation.verification.worker", engine, str(path), str(tokens)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=os.environ | offline,
            )
        )
        self._response()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._open.close()

    def logits(self, ids: Sequence[int]) -> Tensor:
        """Return the next-token logits after each of `ids`, (T, V)."""
        self._request(do="logits", ids=list(ids))
        header = self._response()
        data = bytearray(header["bytes"])
        view, filled = memoryview(data), 0
        assert self._process.stdout is not None
        while filled < len(data):
            count = self._process.stdout.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._crashed()
            filled += count
        return torch.frombuffer(data, dtype=torch.float32).view(*header["shape"])

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Generate `count` tokens after `ids` by greedy decoding."""
        self._request(do="greedy", ids=list(ids), count=count)
        return list(self._response()["ids"])

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text without BOS or EOS."""
        self._request(do="encode", text=text)
        return list(self._response()["ids"])

    def _request(self, **request: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._crashed() from None

    def _response(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._crashed()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _crashed(self) -> PeerError:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = [line.strip() for line in self._stderr.read()[-_MAX_STDERR_CHARACTERS:].splitlines() if line.strip()]
        self.close()
        # The last line of stderr is often not the error message, because transformers prints advice after the error.
        errors = [line for line in lines if _ERROR.match(line)] or lines
        return PeerError(
            f"{self.name} on {self._path.name}: " + (visible(errors[-1]) if errors else f"ended with code {code}"),
            rule="the round-trip check runs this engine if it is installed",
            fix="If the engine does not support this model family, upgrade it, or skip the check: --no-verify.",
        )
