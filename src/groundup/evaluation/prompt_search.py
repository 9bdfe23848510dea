"""Prompts for a model that was not fine-tuned for a task, and the search for the best prompt.

A base model needs a good prompt: the right format, few-shot examples, an instruction. The best prompt is found on
training examples, never on the test set.

Shape letters: E examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from groundup.core.console import Console
from groundup.core.types import Example, Message
from groundup.data.tables import evenly_spaced
from groundup.evaluation.responses import response_tokens, score_responses
from groundup.hub.adapted import is_adapter_of
from groundup.hub.resolve import open_chat_model
from groundup.inference import GenerationRequest, complete_all
from groundup.inference.prompting import (
    ChatFormat,
    PromptFormat,
    RenderedConversation,
    Renderer,
    TextFormat,
    best_candidate,
    fits,
    greedy_request,
    plain_formats,
)
from groundup.kernels import ComputeDtype, cast_for_inference
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

MAX_QUALITY_EXAMPLES = 16  # Training examples on which generated answers are scored.
# Limits of the examples on which each prompt is tried: the search must take less time than fine-tuning, even on a CPU.
_TRIAL_TOKENS, _MIN_TRIALS, _MAX_TRIALS = 2_500, 8, 48
_MAX_SHOTS = 4
_SHOT_TOKENS = 500  # Of all shots, which are part of every prompt.
_SHOT_TRIALS = 12  # Prompts with shots are several times as long.
_NUM_FINALISTS = 3
_MAX_LABELS = 60  # In an instruction.


@dataclass(frozen=True, eq=False)
class PromptedModel:
    """A model with its tokenizer and prompt formats.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        template: chat template; None: the model has none.
        stop_ids: ids of the tokens that end a text.
    """

    model: Transformer
    tokenizer: Tokenizer
    template: ChatTemplate | None
    stop_ids: tuple[int, ...]

    @cached_property
    def chat_format(self) -> ChatFormat | None:
        """Prompt format of the chat template, if the model has one."""
        return ChatFormat(self.template) if self.template else None

    @cached_property
    def plain_formats(self) -> tuple[TextFormat, ...]:
        """Prompt formats without a chat template."""
        return plain_formats(self.tokenizer, self.stop_ids)


def open_prompted(path: Path, base: Path, device: str | None, dtype: ComputeDtype, console: Console) -> PromptedModel:
    """Load a model to compute in a dtype.

    Args:
        path: model directory or run.
        base: base model, which is loaded for an adapter that was trained on it.
        device: device to compute on; None: a GPU if available.
        dtype: data type to compute in.
        console: output for notes.

    Returns:
        The model.

    Raises:
        DataError: the model does not exist.
        FormatError: the model is damaged.
    """
    opened, template = open_chat_model(path, device, console, base=base if is_adapter_of(path, base) else None)
    cast_for_inference(opened.model, dtype)
    return PromptedModel(opened.model, opened.tokenizer, template, opened.stop_ids)


@dataclass(frozen=True, slots=True, eq=False)
class FewShotPrompt:
    """A prompt for the questions of a task.

    Attributes:
        format: prompt format.
        shots: few-shot examples, which precede the question.
        instruction: text at the beginning of the prompt.
    """

    format: PromptFormat
    shots: tuple[Example, ...] = ()
    instruction: str = ""

    @property
    def name(self) -> str:
        """A short description."""
        shown = f", {len(self.shots)} few-shot examples" if self.shots else ""
        return self.format.name + shown + (", list of labels" if self.instruction else "")

    def with_prompt(self, example: Example) -> Example:
        """Return an example with the instruction and the shots."""
        messages = list(example.messages)
        system = [messages.pop(0).content] if messages[0].role == "system" else []
        first = "\n\n".join([self.instruction, *system] if self.instruction else system)
        whole = [message for shot in self.shots for message in shot.messages if message.role != "system"] + messages
        if first and self.format.supports_system:
            whole.insert(0, Message("system", first))
        elif first:
            whole[0] = Message(whole[0].role, f"{first}\n\n{whole[0].content}")
        return Example(tuple(whole))

    def render(self, example: Example) -> RenderedConversation:
        """Return an example with its prompt; only its own answers are scored."""
        answers = sum(message.role == "assistant" for shot in self.shots for message in shot.messages)
        return _without_scores(self.format.render(self.with_prompt(example)), answers)

    def request(self, example: Example, max_tokens: int) -> GenerationRequest:
        """Return the request for a greedy answer to the last question of an example."""
        return greedy_request(self.format, self.with_prompt(example).messages[:-1], max_tokens)


def generate_answers(
    prompted: PromptedModel,
    prompt: FewShotPrompt,
    examples: Sequence[Example],
    max_tokens: int,
    *,
    advance: Callable[[float], object] = lambda _: None,
) -> list[str]:
    """Return the model's greedy answer to the last question of each example.

    Args:
        prompted: model.
        prompt: prompt for the questions.
        examples: examples with the questions.
        max_tokens: maximum number of tokens per answer.
        advance: called with the number of answers generated since the last call.

    Returns:
        One answer per example.
    """
    requests = [prompt.request(example, max_tokens) for example in examples]
    done = complete_all(prompted.model, prompted.tokenizer, requests, advance=advance)
    return [each.text.strip() for each in done]


def choose_labels(
    prompted: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example], labels: Sequence[str]
) -> list[str]:
    """Return the label that is the most likely answer to the last question of each example."""
    labeled = [
        Example((*example.messages[:-1], Message("assistant", label))) for example in examples for label in labels
    ]
    nll_E = score_responses(prompted.model, prompted.tokenizer, labeled, prompt.render).nll_E
    return [labels[place] for place in nll_E.reshape(len(examples), len(labels)).argmin(1)]


def best_prompt(
    prompted: PromptedModel,
    train: Sequence[Example],
    *,
    instruction: str = "",
    quality: Callable[[FewShotPrompt, Sequence[Example]], float] | None = None,
    advance: Callable[[float], object] = lambda _: None,
) -> FewShotPrompt:
    """Return the prompt with which a model performs best on training examples.

    First all formats without chat template are tried. Then the best of them and the chat template are tried, with and
    without shots and instruction. If `quality` is given, it decides between the three prompts with the lowest loss.

    Args:
        prompted: model.
        train: examples for shots and trials.
        instruction: instruction to try, such as a `label_instruction`; empty: none.
        quality: score of a prompt on examples, higher is better; None: the loss decides.
        advance: called after each of the `num_trials` trials.

    Returns:
        The best prompt.
    """
    shots = _shots(prompted, train)
    tried = trial_examples(prompted.tokenizer, [example for example in train if example not in shots] or train)
    few = evenly_spaced(tried, _SHOT_TRIALS)

    def loss(prompt: FewShotPrompt, examples: Sequence[Example]) -> float:
        advance(1)
        return _loss(prompted, prompt, examples)

    plain = [FewShotPrompt(format) for format in prompted.plain_formats]
    leading = [best_candidate(plain, lambda prompt: loss(prompt, tried))[0]]
    leading += [FewShotPrompt(prompted.chat_format)] if prompted.chat_format else []
    prompts = [
        replace(prompt, shots=shown, instruction=text)
        for prompt in leading
        for text in ("", *([instruction] if instruction else []))
        for shown in ((), *([shots] if shots else []))
    ]
    _, losses = best_candidate(prompts, lambda prompt: loss(prompt, few))
    ranked = [prompts[place] for place in np.argsort(losses, kind="stable") if np.isfinite(losses[place])]
    if not ranked:
        return leading[-1]
    if quality is None:
        return ranked[0]
    # Shots lower the loss of most models, but only answers show whether they help. One prompt without shots is kept.
    finalists = ranked[: _NUM_FINALISTS - 1]
    rest = ranked[_NUM_FINALISTS - 1 :]
    finalists += next(([prompt] for prompt in rest if prompt.shots != ranked[0].shots), ranked[2:3])
    return best_candidate(finalists, lambda prompt: -quality(prompt, tried))[0]


def default_prompt(prompted: PromptedModel, instruction: str = "") -> FewShotPrompt:
    """Return the prompt to use without training examples: the chat template, or otherwise "Q: ..." and "A: ..."."""
    return FewShotPrompt(prompted.chat_format or prompted.plain_formats[0], instruction=instruction)


def num_trials(prompted: PromptedModel, instruction: str = "") -> int:
    """Return the number of trials of `best_prompt`, for a progress bar."""
    leading = 1 + (prompted.template is not None)
    return len(prompted.plain_formats) + leading * (4 if instruction else 2)


def label_instruction(labels: Sequence[str], *, multi_label: bool = False) -> str:
    """Return the instruction to answer with these labels; empty if there are no labels or too many.

    Args:
        labels: all labels.
        multi_label: whether an answer may contain several labels.

    Returns:
        The instruction.
    """
    if not labels or len(labels) > _MAX_LABELS:
        return ""
    of_these = "those of these that fit, with commas between" if multi_label else "one of these only"
    return f"Answer with {of_these}: {', '.join(labels)}."


def trial_examples(tokenizer: Tokenizer, train: Sequence[Example]) -> Sequence[Example]:
    """Return evenly spaced training examples for trials of prompts."""
    few = evenly_spaced(train, _MAX_TRIALS)
    sizes = [sum(len(tokenizer.encode(message.content)) for message in example.messages) for example in few]
    count = int(_TRIAL_TOKENS * len(few) / max(sum(sizes), 1))
    return evenly_spaced(few, min(_MAX_TRIALS, max(_MIN_TRIALS, count)))


def _shots(prompted: PromptedModel, train: Sequence[Example]) -> tuple[Example, ...]:
    """Return short examples, evenly spaced, with distinct answers if possible."""
    short = sorted(evenly_spaced(train, 400), key=lambda example: sum(len(m.content) for m in example.messages))
    short = short[: max(_MAX_SHOTS, len(short) // 2)]
    budget = min(_SHOT_TOKENS, prompted.model.config.context_length // 4)
    chosen: list[Example] = []
    answers = set[str]()
    for example in evenly_spaced(short, 100):
        answer = example.messages[-1].content
        size = sum(len(prompted.tokenizer.encode(message.content)) for message in example.messages)
        if len(chosen) < _MAX_SHOTS and answer not in answers and size <= budget:
            budget -= size
            chosen.append(example)
            answers.add(answer)
    return tuple(chosen)


def _loss(prompted: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example]) -> float:
    """Return nats per token of the answers; infinite if an example with its shots exceeds the context."""
    render: Renderer = prompt.render
    if not all(fits(render, example, prompted.model.config.context_length) for example in examples):
        return float("inf")
    nll_E = score_responses(prompted.model, prompted.tokenizer, examples, render).nll_E
    return float(nll_E.sum() / response_tokens(prompted.tokenizer, examples).sum())


def _without_scores(rendered: RenderedConversation, answers: int) -> RenderedConversation:
    """Return the conversation with its first answers excluded from the score."""
    if not answers:
        return rendered
    cut = [place for place, last in enumerate(rendered.last) if last][answers - 1] + 1
    cut += cut < len(rendered.ends) and rendered.ends[cut]
    scored, last, ends = ([False] * cut + column[cut:] for column in (rendered.scored, rendered.last, rendered.ends))
    return RenderedConversation(rendered.ids, scored, last, ends)
