"""Comparison of an instruction-tuned model with its base model after training. Both are loaded from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.core.console import Console
from groundup.data.conversations.instruction import InstructionData
from groundup.data.tables import evenly_spaced
from groundup.evaluation.comparisons.base_model import BaseComparison, compare_with_base
from groundup.hub import load_model
from groundup.hub.adapted import with_adapter
from groundup.kernels import Machine, cast_for_inference
from groundup.model import Transformer

# Maximum number of test conversations. Both models score each one, so 1,000 conversations would take as long as a short
# fine-tuning run.
_MAX_SCORED = 300
_NUM_TRANSCRIPTS = 3
_ANSWER_TOKENS = 80


def load_fine_tuned_and_base(
    directory: Path, base: Path, machine: Machine, *, adapter: bool
) -> tuple[Transformer, Transformer]:
    """Load a fine-tuned model and its base model in the same dtype.

    Args:
        directory: directory of the fine-tuned model or of the adapter.
        base: directory of the base model.
        machine: device and dtype.
        adapter: whether `directory` contains an adapter of the base model.

    Returns:
        The fine-tuned model and the base model.
    """
    original = load_model(base, device=machine.device)
    fine_tuned = with_adapter(original, directory) if adapter else load_model(directory, device=machine.device)
    for model in (original, fine_tuned):
        cast_for_inference(model, machine.compute_dtype)
    return fine_tuned, original


def compare_fine_tuned(
    fine_tuned: Transformer,
    base: Transformer,
    data: InstructionData,
    *,
    seed: int,
    console: Console,
) -> tuple[BaseComparison, list[dict[str, Any]]]:
    """Compare a fine-tuned model with its base model on test conversations, and print sample answers of both models.

    Args:
        fine_tuned: fine-tuned model.
        base: base model, whose prompt format is chosen on the training examples of `data`.
        data: training and test conversations.
        seed: seed of the bootstrap.
        console: console that prints progress and samples.

    Returns:
        The comparison, and the printed samples as JSON values.
    """
    tokenizer, template = data.tokenizer, data.template
    scored = evenly_spaced(data.test, _MAX_SCORED)
    if len(scored) < len(data.test):
        console.note(f"Scored: a sample of {len(scored):,} of {len(data.test):,} test conversations.")
    with console.progress("scoring", 2 * len(scored), "answers") as bar:
        compared = compare_with_base(
            fine_tuned, base, tokenizer, template, data.train, scored, seed=seed, advance=bar.advance
        )
    transcripts = compared.transcripts(fine_tuned, base, tokenizer, count=_NUM_TRANSCRIPTS, max_tokens=_ANSWER_TOKENS)
    for transcript in transcripts:
        said = "\n".join(f"{message['role']}: {message['content']}" for message in transcript["messages"])
        console.sample("test question", f"{said}\n(base: {transcript['base']})")
    console.note(compared.sentence)
    return compared, transcripts
