"""Comparison of an instruction-tuned model with its base after training, both loaded from their files."""

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
from groundup.kernels import Machine, cast_for_inference
from groundup.model import Transformer

_MAX_SCORED = (
    300  # Number of test conversations. Both models score each, and 1,000 would take as long as a short fine-tuning.
)
_NUM_TRANSCRIPTS = 3
_ANSWER_TOKENS = 80


def load_tuned_and_base(
    directory: Path, base: Path, machine: Machine, *, adapter: bool
) -> tuple[Transformer, Transformer]:
    """Load a fine-tuned model and its base in the same dtype.

    Args:
        directory: directory of the fine-tuned model or adapter.
        base: directory of the base model.
        machine: device and dtype.
        adapter: whether `directory` holds an adapter of the base.

    Returns:
        The fine-tuned model and the base.
    """
    original = load_model(base, device=machine.device)
    tuned = with_adapter(original, directory) if adapter else load_model(directory, device=machine.device)
    for model in (original, tuned):
        cast_for_inference(model, machine.compute_dtype)
    return tuned, original


def compare_tuned(
    tuned: Transformer,
    base: Transformer,
    data: InstructionData,
    *,
    seed: int,
    console: Console,
) -> tuple[BaseComparison, list[dict[str, Any]]]:
    """Compare a fine-tuned model with its base on test conversations, and print a few answers of both.

    Args:
        tuned: fine-tuned model.
        base: base model; its prompt format is chosen on training examples of `data`.
        data: training and test conversations.
        seed: seed of the bootstrap.
        console: output for progress and samples.

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
