"""The gate for a GGUF file: its weights beside the model's, and what groundup and llama.cpp make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from groundup.core.console import Console
from groundup.evaluation.verification.peers import Peer, missing
from groundup.evaluation.verification.round_trip import (
    COLUMNS,
    ENGINE_LIMITS,
    WEIGHT_LIMITS,
    Check,
    Material,
    OurRunner,
    farthest,
    require_none,
    run_gate,
)
from groundup.hub.gguf import Fallback, FileType, GgufModel, GgufVocabulary, write_gguf
from groundup.hub.resolve import OpenedModel
from groundup.model import Transformer

_MODEL = "the model"  # as the reference of a comparison
_BACK = "read back"


def write_verified(
    opened: OpenedModel,
    vocabulary: GgufVocabulary,
    kind: FileType,
    path: Path,
    tried: Material | None,
    console: Console,
) -> dict[str, Any]:
    """Write a GGUF file of one type; it gets its name only after it was verified.

    Args:
        tried: the texts for the verification; None: the file is not verified.

    Returns:
        `bytes`, `weights`, `fallbacks`, and what `try_file` returns as `gate`.

    Raises:
        FormatError: the file does not agree with the model; it is deleted.
    """
    unchecked = path.with_name(f".{path.name}.unchecked.tmp{path.suffix}")
    try:
        with console.progress(f"writing {kind}", None, "bytes") as bar:
            written = write_gguf(
                unchecked,
                opened.model.config,
                opened.model.state_dict(),
                vocabulary.metadata,
                kind,
                name=opened.directory.resolve().name,
                advance=bar.advance,
            )
        for note in written.notes:
            console.warn(note)
        for (wanted, got, why), names in _grouped(written.fallbacks).items():
            console.note(f"{got} in the place of {wanted} in {len(names)} tensors: {why} ({', '.join(names[:3])}, ...)")
        facts: dict[str, Any] = {
            "bytes": written.n_bytes,
            "weights": sum(parameter.numel() for parameter in opened.model.parameters()),
            "fallbacks": [asdict(fallback) for fallback in written.fallbacks],
        }
        if tried is not None:
            facts["gate"] = try_file(opened, unchecked, path.name, kind, tried, console)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return facts


def _grouped(fallbacks: Sequence[Fallback]) -> dict[tuple[str, str, str], list[str]]:
    """Return the tensors that share a fallback."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for fallback in fallbacks:
        found.setdefault((fallback.wanted, fallback.got, fallback.why), []).append(fallback.tensor)
    return found


def try_file(
    opened: OpenedModel, file: Path, name: str, kind: str, tried: Material, console: Console
) -> dict[str, Any]:
    """Compare a file with the model that was written to it: weights, and what groundup and llama.cpp read of it.

    Args:
        name: what the file will be called.
        kind: of its matrices.

    Returns:
        `equal_bit_for_bit`, `farthest_weights`, and what `Verdict.to_json` says.

    Raises:
        FormatError: they do not agree.
    """
    ours = OurRunner(_MODEL, opened.model, opened.tokenizer)
    stored = GgufModel(file)
    tensor, error = farthest(opened.model.state_dict(), stored.state())
    named, most = f"{name} as {kind}", WEIGHT_LIMITS[kind]
    if not error <= most:
        require_none([f"{tensor} is off by {error:.1e} of its size, by rounding {most:.1e} at most"], named)
    equal = error == 0 and stored.config == opened.model.config
    back = OurRunner(_BACK, opened.model if equal else _as_model(stored), opened.tokenizer)
    absent = missing("llama.cpp")
    with ExitStack() as opened_peers:
        checks = [] if equal else [Check(ours, back, kind)]
        if not absent:
            peer = opened_peers.enter_context(Peer("llama.cpp", file, tokens=tried.longest))
            checks.append(Check(ours, peer, kind))
            checks += [] if equal else [Check(back, peer, ENGINE_LIMITS[kind])]
        verdict = run_gate(checks, tried, absent=[absent] if absent else [], console=console, label=f"trying {kind}")
    require_none(verdict.problems, named)
    return {"equal_bit_for_bit": equal, "farthest_weights": [tensor, error], **verdict.to_json()}


def gate_sentence(made: Mapping[str, dict[str, Any]]) -> str:
    """How files were tried, by type what is recorded of each."""
    gates = [facts["gate"] for facts in made.values() if "gate" in facts]
    if not gates:
        return "not tried"
    engines = {check["who"] for gate in gates for check in gate["checks"]} - {_BACK}
    return f"read back and found to agree, {'by ' + ', '.join(sorted(engines)) + ' too' if engines else 'by groundup'}"


def gate_table(made: Mapping[str, dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows: a line for each file and engine, beside the model itself."""
    rows = []
    for kind, facts in made.items():
        size = (f"{facts['bytes'] / 1e6:,.1f}", f"{8 * facts['bytes'] / facts['weights']:.2f}")
        gate = facts.get("gate", {"checks": []})
        checks = [check for check in gate["checks"] if check["beside"] == _MODEL]
        if gate.get("equal_bit_for_bit"):
            rows.append((f"{kind}, {_BACK}", *size, "identical", *[""] * (len(COLUMNS) - 1)))
        rows += [(f"{kind}, {check['who']}", *size, *check["cells"]) for check in checks]
        if not gate["checks"] and not gate.get("equal_bit_for_bit"):
            rows.append((f"{kind}, not tried", *size, *[""] * len(COLUMNS)))
    return ("", "MB", "bits/weight", *COLUMNS), rows


def _as_model(stored: GgufModel) -> Transformer:
    with torch.device("meta"):
        model = Transformer(stored.config)
    model.load_state_dict(dict(stored.state()), assign=True)
    if stored.config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval().requires_grad_(False)
