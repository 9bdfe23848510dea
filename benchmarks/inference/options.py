"""Options of all parts: the model, its GGUF files, and the program that runs llama.cpp."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def parser_of(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all parts, whose defaults are environment variables."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("MODEL"), help="model directory [$MODEL]")
    parser.add_argument("--gguf", default=os.environ.get("GGUF"), help="directory with GGUF files of the model [$GGUF]")
    parser.add_argument(
        "--peer", default=os.environ.get("PEER"), help="Python that has xllamacpp, or llama-bench [$PEER]"
    )
    parser.add_argument("--texts", default=os.environ.get("TEXTS") or None, help="text file or folder [$TEXTS]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    return parser


def model_of(options: argparse.Namespace) -> Path:
    """Return the model directory, or exit with a message."""
    if not options.model:
        raise SystemExit("set MODEL to a model directory (benchmarks/README.md)")
    return Path(options.model)


def gguf_files(options: argparse.Namespace, pattern: str) -> tuple[Path, ...]:
    """Return the GGUF files whose names match a pattern, if llama.cpp can be run."""
    return tuple(sorted(Path(options.gguf).glob(pattern))) if options.gguf and options.peer else ()
