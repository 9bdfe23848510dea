"""Round-trip check of an imported model, which compares it with the original in transformers and llama.cpp."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from groundup.core.console import Console
from groundup.evaluation.verification.peers import Engine, Peer, missing
from groundup.evaluation.verification.round_trip import (
    COLUMNS,
    Check,
    GroundupRunner,
    Verdict,
    cells,
    require_no_problems,
    round_trip_inputs,
    run_checks,
)
from groundup.hub import load_model
from groundup.hub.weight_files import is_gguf
from groundup.tokenizer import Tokenizer


def verify_import(source: Path, written: Path, limits: str, console: Console) -> Verdict:
    """Compare an imported model with the original, which runs in transformers or llama.cpp if they are installed.

    Args:
        source: directory or GGUF file of the original model.
        written: directory to which the import wrote the model.
        limits: key of `round_trip.LIMITS` that fits the dtype of the original weights.
        console: console that prints progress and the table of results.

    Returns:
        The result of the check.

    Raises:
        FormatError: the models do not agree.
    """
    tokenizer = Tokenizer.load(written)
    model = load_model(written)
    inputs = round_trip_inputs(tokenizer, model.config.context_length)
    ours = GroundupRunner("groundup", model, tokenizer)
    engines: list[tuple[Engine, Path, str]] = [("transformers", source, limits)]
    if is_gguf(source):
        engines = [("llama.cpp", source, limits), ("transformers", written, "exact")]
    absent = [message for engine, _, _ in engines if (message := missing(engine))]
    with ExitStack() as open_peers:
        checks = [
            Check(ours, open_peers.enter_context(Peer(engine, path, tokens=inputs.longest)), narrow)
            for engine, path, narrow in engines
            if not missing(engine)
        ]
        verdict = run_checks(checks, inputs, console=console, label="comparing", absent=absent)
    if checks:
        console.table("Round trip", ("", *COLUMNS), [(check.who, *cells(check)) for check in verdict.agreements])
    require_no_problems(verdict.problems, source.name)
    return verdict
