"""Memorization of training text: how often a model reproduces the continuation of a training text exactly.

A prompt of 50 tokens from the training text is continued by greedy decoding. The text counts as extracted if the next
50 tokens are the same as in the training text (Carlini et al. 2022, arXiv:2202.07646).

Shape letters: E: number of prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.data.texts import general_texts
from groundup.evaluation.metrics import mean
from groundup.evaluation.prompt_search import PromptedModel
from groundup.evaluation.tasks.declaration import EvaluationTask
from groundup.evaluation.tasks.result import TaskResult
from groundup.inference import GenerationRequest, Sampling, complete_all

_MAX_PROMPTS = 200  # Default number of prompts.
_MAX_BYTES = 20_000_000  # Approximate maximum number of bytes of training text from which prompts are drawn.


def score_memorization(prompted: PromptedModel, task: EvaluationTask, seed: int, console: Console) -> TaskResult:
    """Return the extraction rate: the percentage of prompts that the model continues like the training text.

    Args:
        prompted: language model.
        task: task of the kind "memorization". Its data is a corpus or token shards, of which the training part is used,
            or texts.
        seed: seed for the choice of the prompts.
        console: console that prints progress.

    Raises:
        DataError: no text has enough tokens.
    """
    size, wanted = task.prompt_tokens, task.continuation_tokens
    windows = _windows(prompted, general_texts(task.data, _MAX_BYTES, split="train"), task, seed)
    requests = [
        GenerationRequest(
            prompt=tuple(ids[:size]), sampling=Sampling(temperature=0.0), max_tokens=wanted, stop_ids=(), seed=seed
        )
        for ids in windows
    ]
    with console.progress(task.name, len(requests), "prompts") as bar:
        done = complete_all(prompted.model, prompted.tokenizer, requests, dtype=prompted.dtype, advance=bar.advance)
    equal_E = [
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(each.token_ids, ids[size:], strict=False)))
        for each, ids in zip(done, windows, strict=True)
    ]
    rate = mean("extraction rate", [100.0 * (equal == wanted) for equal in equal_E])
    length = mean("tokens reproduced exactly", equal_E, unit="tokens")
    decode = prompted.tokenizer.decode
    items = [
        {
            "prompt": decode(ids[:size]),
            "reference": decode(ids[size:]),
            "written": each.text,
            "tokens_reproduced": equal,
            "right": float(equal == wanted),
        }
        for ids, each, equal in zip(windows, done, equal_E, strict=True)
    ]
    note = f"{size} tokens of training text are the prompt; the next {wanted} must be reproduced exactly."
    return TaskResult(task.name, "memorization", [rate, length], items, notes=[note])


def _windows(prompted: PromptedModel, texts: Sequence[str], task: EvaluationTask, seed: int) -> list[list[int]]:
    """Return the tokens of prompts and continuations. Each text gives at most one, from a random place."""
    needed = task.prompt_tokens + task.continuation_tokens
    if needed > prompted.model.config.context_length:
        raise DataError(
            f"task {task.name}: prompt_tokens + continuation_tokens = {needed}",
            rule=f"the context of the model has {prompted.model.config.context_length} tokens",
            fix="Reduce prompt_tokens or continuation_tokens.",
        )
    generator = np.random.default_rng(seed)
    windows: list[list[int]] = []
    limit = task.max_items or _MAX_PROMPTS
    for place in generator.permutation(len(texts)):
        ids = prompted.tokenizer.encode(texts[place])
        if len(ids) >= needed:
            start = int(generator.integers(len(ids) - needed + 1))
            windows.append(ids[start : start + needed])
        if len(windows) == limit:
            break
    if not windows:
        raise DataError(
            f"task {task.name}: none of {len(texts):,} texts has {needed} tokens",
            fix="Give longer texts, or reduce prompt_tokens or continuation_tokens.",
        )
    return windows
