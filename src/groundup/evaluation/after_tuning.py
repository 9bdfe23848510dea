"""The final comparison of an instruction-tuned model with its base, both read from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.core.console import Console
from groundup.data.instruction import InstructionData
from groundup.data.tables import evenly_spaced
from groundup.evaluation.base_comparison import BaseComparison, compare_with_base
from groundup.hub import load_model
from groundup.hub.adapted import with_adapter
from groundup.inference import Engine
from groundup.kernels import Machine, keep_for_reading
from groundup.model import Transformer

_MAX_SCORED = 300  # test conversations, scored by both models: a thousand would take as long as many a tuning
_NUM_TRANSCRIPTS = 3
_ANSWER_TOKENS = 80


def tuned_and_base(directory: Path, base: Path, machine: Machine, *, adapter: bool) -> tuple[Transformer, Transformer]:
    """Open a tuned model and its base from their files, in one dtype, so that they differ in nothing but the tuning.

    Args:
        directory: Of the tuned model.
        adapter: It is an adapter of the base.
    """
    original = load_model(base, device=machine.device)
    tuned = with_adapter(original, directory) if adapter else load_model(directory, device=machine.device)
    for model in (original, tuned):
        keep_for_reading(model, machine.compute_dtype)
    return tuned, original


def compare_tuned(
    tuned: Transformer,
    base: Transformer,
    data: InstructionData,
    *,
    seed: int,
    console: Console,
) -> tuple[BaseComparison, list[dict[str, Any]]]:
    """Score both models on test conversations, and show what each answers to a few.

    Args:
        data: The base's prompt format is chosen on some of its training examples.

    Returns:
        The comparison and the transcripts as JSON values.
    """
    tokenizer, template = data.tokenizer, data.template
    scored = evenly_spaced(data.test, _MAX_SCORED)
    if len(scored) < len(data.test):
        console.note(f"Scored: a sample of {len(scored):,} of {len(data.test):,} test conversations.")
    with console.progress("scoring", 2 * len(scored), "answers") as bar:
        compared = compare_with_base(
            tuned, base, tokenizer, template, data.train, scored, seed=seed, advance=bar.advance
        )
    with Engine(tuned, tokenizer, stop_ids=template.stop_ids) as ours, Engine(base, tokenizer) as before:
        transcripts = compared.transcripts(ours, before, _NUM_TRANSCRIPTS, _ANSWER_TOKENS)
    for transcript in transcripts:
        said = "\n".join(f"{message['role']}: {message['content']}" for message in transcript["messages"])
        console.sample("test question", f"{said}\n(base: {transcript['base']})")
    console.note(compared.sentence)
    return compared, transcripts
