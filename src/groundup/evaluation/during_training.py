"""Scores and generated samples that are shown during training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from groundup.core.console import Console
from groundup.core.console import ProgressBar as ProgressBar
from groundup.core.types import Example
from groundup.data import TokenShards
from groundup.data.tables import evenly_spaced
from groundup.evaluation.bpb import BitsPerByte, bits_per_byte, compare_bits_per_byte, model_nll
from groundup.evaluation.comparisons.base_model import greedy_answers
from groundup.evaluation.responses import response_tokens, score_responses
from groundup.inference import GenerationRequest, Sampling, complete_all
from groundup.inference.prompting import ChatFormat, fits
from groundup.kernels import eager_mode
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer
from groundup.train import SampleLog, StepReport, TrainingRun

# Minimum and maximum number of validation tokens per score during training. Scoring the maximum takes 1 to 2 seconds.
_MIN_TEXT_TOKENS, _MAX_TEXT_TOKENS = 2048, 16_384
_MIN_FINAL_TOKENS = 16_384
_SAMPLE_TOKENS = 60
# Maximum number of validation examples per score, and of their tokens. Three scores take about as long as training on
# the maximum number of tokens.
_NUM_EXAMPLES, _EXAMPLE_TOKENS = 64, 4096
_ANSWER_TOKENS = 80

Show = Callable[[StepReport, ProgressBar], None]


def scored_tokens(trained_tokens: int) -> tuple[int, int]:
    """Return the number of validation tokens that are scored at each evaluation during training, and after it.

    Scoring a token takes a third of the time of training on it. So ten evaluations take at most 5 % of the training
    time, and the final score takes 4 %, except in short runs, in which the minima apply.

    Args:
        trained_tokens: Number of tokens of the run.
    """
    during = min(_MAX_TEXT_TOKENS, max(_MIN_TEXT_TOKENS, trained_tokens // 64))
    return during, max(_MIN_FINAL_TOKENS, trained_tokens // 8)


def text_score(validation: TokenShards, model: Transformer, num_tokens: int, rows: int) -> Callable[[], BitsPerByte]:
    """Return a function that computes the bits per byte of a model on a few validation documents.

    Args:
        validation: validation documents.
        model: model that is being trained.
        num_tokens: minimum number of tokens that are scored, if there are so many.
        rows: rows per batch. With the micro-batch size of training, scoring takes less memory than training.

    Returns:
        A function that returns the bits per byte.
    """
    # Documents are sorted by hash, so the first ones are a random sample.
    count = int(np.searchsorted(np.cumsum(validation.lengths), num_tokens)) + 1
    subset = range(count)[: validation.n_documents]

    def score() -> BitsPerByte:
        with eager_mode():
            return bits_per_byte(
                model_nll(model),
                validation,
                context_length=model.config.context_length,
                bos_id=validation.bos_id,
                subset=subset,
                batch_size=rows,
                device=model.device,
            )

    return score


def comparison_facts(after: BitsPerByte, before: BitsPerByte | None, base: str, console: Console) -> dict[str, Any]:
    """Print the bits per byte after continued pretraining, compared with the base model, and return them.

    Args:
        after: bits per byte after training.
        before: bits per byte of the base model, or None if training started from random weights.
        base: path of the base model.
        console: console to print to.

    Returns:
        The facts for `artifact.json`, which are empty without a base model.
    """
    if before is None:
        return {}
    compared = compare_bits_per_byte(after, before)
    console.note(f"Validation set: {compared.sentence}")
    return {"base": base, "held_out": compared.facts()}


def show_text(
    model: Transformer, tokenizer: Tokenizer, score: Callable[[], BitsPerByte], prompt: str, run: TrainingRun
) -> Show:
    """Return a callback that shows the current bits per byte and a generated continuation of a prompt.

    Args:
        model: model that is being trained.
        tokenizer: tokenizer of the model.
        score: function that returns the bits per byte; see `text_score`.
        prompt: text that the model continues.
        run: training run, which has the directory and the console for the output.

    Returns:
        The callback.
    """
    request = GenerationRequest(prompt=prompt, sampling=Sampling(temperature=0.8), max_tokens=_SAMPLE_TOKENS, seed=0)
    samples = SampleLog(run.directory, run.ranks)

    def show(report: StepReport, bar: ProgressBar) -> None:
        bpb = score().bpb
        with eager_mode():
            text = prompt + complete_all(model, tokenizer, [request])[0].text
        bar.show(bpb=f"{bpb:.3f}")
        run.console.sample(f"sample at step {report.step:,}, {bpb:.3f} bits per byte", text)
        samples.add(report.step, text, bpb=bpb)

    return show


def show_answers(
    model: Transformer, tokenizer: Tokenizer, template: ChatTemplate, examples: Sequence[Example], run: TrainingRun
) -> Show:
    """Return a callback that shows the loss on a few validation answers and one generated answer.

    Args:
        model: model that is being trained.
        tokenizer: tokenizer of the model.
        template: chat template of the model.
        examples: validation examples.
        run: training run, which has the directory and the console for the output.

    Returns:
        The callback.
    """
    format = ChatFormat(template)
    render = format.render
    context = model.config.context_length
    fitting = [example for example in evenly_spaced(examples, _NUM_EXAMPLES) if fits(render, example, context)]
    lengths = [len(render(example).ids) for example in fitting]
    scored = evenly_spaced(fitting, len(fitting) * _EXAMPLE_TOKENS // max(sum(lengths), _EXAMPLE_TOKENS) or 1)
    tokens = int(response_tokens(tokenizer, scored).sum())
    samples = SampleLog(run.directory, run.ranks)

    def show(report: StepReport, bar: ProgressBar) -> None:
        if not scored:
            return
        with eager_mode():
            loss = float(score_responses(model, tokenizer, scored, render).nll_E.sum()) / tokens
            question = scored[report.step % len(scored)].messages[:-1]
            (written,) = greedy_answers(model, tokenizer, [question], format, max_tokens=_ANSWER_TOKENS)
        bar.show(held_out=f"{loss:.3f}")
        text = f"{question[-1].content}\n-> {written}"
        run.console.sample(f"step {report.step:,}, {loss:.3f} nats per token of held-out answers", text)
        samples.add(report.step, text, held_out=loss)

    return show
