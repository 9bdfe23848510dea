"""Round-trip check of a GGUF file.

The check compares the weights of the file, and its logits in groundup and llama.cpp, with the exported model.
"""

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
    CheckInputs,
    GroundupRunner,
    largest_error,
    require_no_problems,
    run_checks,
)
from groundup.hub.gguf import Fallback, FileType, GgufModel, GgufVocabulary, write_gguf
from groundup.hub.loading import OpenedModel
from groundup.model import Transformer

_MODEL = "the model"  # Name of the exported model, which is the reference of the comparison.
_BACK = "read back"


def write_verified(
    opened: OpenedModel,
    vocabulary: GgufVocabulary,
    kind: FileType,
    path: Path,
    inputs: CheckInputs | None,
    console: Console,
) -> dict[str, Any]:
    """Write a GGUF file in one quantization type, and check it.

    The file is written under a temporary name and renamed to `path` after the round-trip check passed.

    Args:
        opened: model to export.
        vocabulary: GGUF vocabulary of the model.
        kind: quantization type of the weight matrices.
        path: path of the file.
        inputs: inputs of the round-trip check, or None to skip the check.
        console: console that prints notes and progress.

    Returns:
        A dictionary with the keys `bytes`, `weights`, `fallbacks` and `verification`. The value of `verification` is
        the result of `verify_file`.

    Raises:
        FormatError: the file does not agree with the model. The file is deleted.
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
        for (intended, used, why), names in _grouped(written.fallbacks).items():
            console.note(f"{used} instead of {intended} in {len(names)} tensors: {why} ({', '.join(names[:3])}, ...)")
        facts: dict[str, Any] = {
            "bytes": written.n_bytes,
            "weights": sum(parameter.numel() for parameter in opened.model.parameters()),
            "fallbacks": [asdict(fallback) for fallback in written.fallbacks],
        }
        if inputs is not None:
            facts["verification"] = verify_file(opened, unchecked, path.name, kind, inputs, console)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return facts


def _grouped(fallbacks: Sequence[Fallback]) -> dict[tuple[str, str, str], list[str]]:
    """Group the names of tensors by the kind of their fallback."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for fallback in fallbacks:
        found.setdefault((fallback.intended, fallback.used, fallback.why), []).append(fallback.tensor)
    return found


def verify_file(
    opened: OpenedModel, file: Path, name: str, kind: str, inputs: CheckInputs, console: Console
) -> dict[str, Any]:
    """Compare the weights of a GGUF file and its logits in groundup and llama.cpp with the exported model.

    Args:
        opened: exported model.
        file: file to check.
        name: final name of the file.
        kind: quantization type of the weight matrices.
        inputs: inputs of the check.
        console: console that prints progress.

    Returns:
        A dictionary with `equal_bit_for_bit`, the tensor with the largest error as `farthest_weights`, and the items of
        `Verdict.to_json`.

    Raises:
        FormatError: the file does not agree with the model.
    """
    ours = GroundupRunner(_MODEL, opened.model, opened.tokenizer)
    stored = GgufModel(file)
    tensor, error = largest_error(opened.model.state_dict(), stored.state())
    named, limit = f"{name} as {kind}", WEIGHT_LIMITS[kind]
    if not error <= limit:
        require_no_problems(
            [f"{tensor} has a relative error of {error:.1e}, but rounding explains at most {limit:.1e}"], named
        )
    equal = error == 0 and stored.config == opened.model.config
    back = GroundupRunner(_BACK, opened.model if equal else _as_model(stored), opened.tokenizer)
    absent = missing("llama.cpp")
    with ExitStack() as opened_peers:
        checks = [] if equal else [Check(ours, back, kind)]
        if not absent:
            peer = opened_peers.enter_context(Peer("llama.cpp", file, tokens=inputs.longest))
            checks.append(Check(ours, peer, kind))
            checks += [] if equal else [Check(back, peer, ENGINE_LIMITS[kind])]
        verdict = run_checks(
            checks, inputs, absent=[absent] if absent else [], console=console, label=f"checking {kind}"
        )
    require_no_problems(verdict.problems, named)
    return {"equal_bit_for_bit": equal, "farthest_weights": [tensor, error], **verdict.to_json()}


def verification_sentence(made: Mapping[str, dict[str, Any]]) -> str:
    """Return a clause that describes in which engines the exported files were checked."""
    results = [facts["verification"] for facts in made.values() if "verification" in facts]
    if not results:
        return "not verified"
    engines = {check["who"] for result in results for check in result["checks"]} - {_BACK}
    return f"round-trip check passed in {', '.join(['groundup', *sorted(engines)])}"


def verification_table(made: Mapping[str, dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a table of checks, with one row per file and engine."""
    rows = []
    for kind, facts in made.items():
        size = (f"{facts['bytes'] / 1e6:,.1f}", f"{8 * facts['bytes'] / facts['weights']:.2f}")
        result = facts.get("verification", {"checks": []})
        checks = [check for check in result["checks"] if check["reference"] == _MODEL]
        if result.get("equal_bit_for_bit"):
            rows.append((f"{kind}, {_BACK}", *size, "identical", *[""] * (len(COLUMNS) - 1)))
        rows += [(f"{kind}, {check['who']}", *size, *check["cells"]) for check in checks]
        if not result["checks"] and not result.get("equal_bit_for_bit"):
            rows.append((f"{kind}, not verified", *size, *[""] * len(COLUMNS)))
    return ("", "MB", "bits/weight", *COLUMNS), rows


def _as_model(stored: GgufModel) -> Transformer:
    with torch.device("meta"):
        model = Transformer(stored.config)
    model.load_state_dict(dict(stored.state()), assign=True)
    if stored.config.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model.eval().requires_grad_(False)
