"""Verification of an imported model against the engines that can read its source, or what was written of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from groundup.core.console import Console
from groundup.evaluation.verification.peers import Engine, Peer, missing
from groundup.evaluation.verification.round_trip import (
    COLUMNS,
    Check,
    OurRunner,
    Verdict,
    cells,
    material,
    require_none,
    run_gate,
)
from groundup.hub import load_model
from groundup.hub.source import is_gguf
from groundup.tokenizer import Tokenizer


def verify_import(source: Path, written: Path, limits: str, console: Console) -> Verdict:
    """Compare an imported model with transformers or llama.cpp, if they are installed.

    Args:
        source: the model that was imported, a directory or a GGUF file.
        written: the directory that the import wrote.
        limits: the name of the limits for the source's weights; see `round_trip.LIMITS`.

    Raises:
        FormatError: they do not agree.
    """
    tokenizer = Tokenizer.load(written)
    model = load_model(written)
    tried = material(tokenizer, model.config.context_length)
    ours = OurRunner("groundup", model, tokenizer)
    wanted: list[tuple[Engine, Path, str]] = [("transformers", source, limits)]
    if is_gguf(source):
        wanted = [("llama.cpp", source, limits), ("transformers", written, "exact")]
    absent = [told for engine, _, _ in wanted if (told := missing(engine))]
    with ExitStack() as open_peers:
        checks = [
            Check(ours, open_peers.enter_context(Peer(engine, path, tokens=tried.longest)), narrow)
            for engine, path, narrow in wanted
            if not missing(engine)
        ]
        verdict = run_gate(checks, tried, console=console, label="comparing", absent=absent)
    if checks:
        console.table("Round trip", ("", *COLUMNS), [(check.who, *cells(check)) for check in verdict.agreements])
    require_none(verdict.problems, source.name)
    return verdict
