"""Agreement with float32 and bits per byte of int8 weights and of llama.cpp's Q8_0, on the same token ids.

The text is split into windows of 512 tokens without overlap, each scored from BOS. llama.cpp runs with its default
settings in the Python of PEER, which has xllamacpp. Logits are compared window by window.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.inference.options import gguf_files, model_of, parser_of
from groundup.core.console import Console
from groundup.data.texts import read_texts
from groundup.evaluation.quantization import LogitsFunction, compare_quality, runner_logits, text_windows
from groundup.hub.loading import open_model
from groundup.inference import make_runner

_DRIVER = Path(__file__).parent / "drivers" / "llama_logits.py"


def main() -> None:
    """Compare both engines with float32."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--tokens", type=int, default=100_000, help="number of scored tokens [100000]")
    parser.add_argument("--dtype", action="append", help="weight formats of groundup [int8]")
    options = parser.parse_args()
    if options.texts is None:
        print("skipped: set TEXTS to a held-out text that is not instruction data (benchmarks/README.md)")
        print("{}")
        return
    torch.set_num_threads(options.threads)
    opened = open_model(model_of(options), device="cpu")
    windows = text_windows(read_texts(Path(options.texts)), opened, max_tokens=options.tokens, source=options.texts)
    sides: dict[str, LogitsFunction] = {
        dtype: runner_logits(make_runner(opened.model, dtype)) for dtype in options.dtype or ["int8"]
    }
    with ExitStack() as stack:
        for file in gguf_files(options, "*q8_0.gguf")[:1]:
            sides["q8"] = stack.enter_context(LlamaLogits(options.peer, file, options.threads)).logits
        exact = ("float32", runner_logits(make_runner(opened.model, "float32")))
        with Console().progress("scoring", windows.tokens, "tokens") as bar:
            found = compare_quality(exact, sides, windows, advance=bar.advance)
    figures: dict[str, Any] = {"bpb_float32": found[0].reference_bpb, "tokens": found[0].tokens}
    for quality in found:
        figures |= {f"agreement_{quality.name}": quality.agreement, f"bpb_{quality.name}": quality.bpb}
        figures[f"kl_{quality.name}"] = quality.kl
    print(json.dumps(figures))


class LlamaLogits:
    """llama.cpp with one GGUF file, in a process of its own. Use it as a context manager."""

    def __init__(self, python: str, file: Path, threads: int) -> None:
        command = [python, str(_DRIVER), str(file), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> LlamaLogits:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def logits(self, ids: Any) -> torch.Tensor:
        """Return the logits after each of the token ids, (T, V)."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(list(ids)).encode() + b"\n")
        process.stdin.flush()
        header = process.stdout.readline()
        if not header:
            raise SystemExit(f"{_DRIVER.name} ended with exit code {process.wait()}")
        rows, columns = json.loads(header)
        data = bytearray(process.stdout.read(4 * rows * columns))
        return torch.frombuffer(data, dtype=torch.float32).view(rows, columns)


if __name__ == "__main__":
    main()
