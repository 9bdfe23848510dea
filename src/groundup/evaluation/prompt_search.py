"""Prompts for a model that was not fine-tuned for a task, and the search for the best prompt.

How well a base model performs depends on its prompt: the prompt format, few-shot examples, and an instruction. The best
prompt is chosen on training examples, never on the test set.

Shape letters: E: number of examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from groundup.core.console import Console
from groundup.core.types import Example, InferenceDtype, Message
from groundup.data.tables import evenly_spaced
from groundup.evaluation.measure import Measure, mean
from groundup.evaluation.responses import response_tokens, score_responses
from groundup.hub.adapted import is_adapter_of
from groundup.hub.loading import open_chat_model
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

MAX_QUALITY_EXAMPLES = 16  # Maximum number of training examples for which answers are generated and scored.
# Limits on the number of examples with which each prompt is tried. The limits are low because the search must take less
# time than fine-tuning, even on a CPU.
_TRIAL_TOKENS, _MIN_TRIALS, _MAX_TRIALS = 2_500, 8, 48
_MAX_SHOTS = 4
_MAX_ANSWER_TOKENS = 512
_SHOT_TOKENS = 500  # Maximum number of tokens of all few-shot examples together.
_SHOT_TRIALS = 12  # Number of examples for prompts with few-shot examples, which are several times as long.
_NUM_FINALISTS = 3
_MAX_LABELS = 60  # Maximum number of labels that an instruction lists.


@dataclass(frozen=True, eq=False)
class PromptedModel:
    """A model with its tokenizer and prompt formats.

    Attributes:
        model: the model.
        tokenizer: tokenizer of the model.
        template: chat template, or None if the model does not have one.
        stop_ids: ids of the tokens that end a text.
        dtype: weight format for generation.
    """

    model: Transformer
    tokenizer: Tokenizer
    template: ChatTemplate | None
    stop_ids: tuple[int, ...]
    dtype: InferenceDtype = "auto"

    @cached_property
    def chat_format(self) -> ChatFormat | None:
        """Prompt format of the chat template, or None if the model does not have a chat template."""
        return ChatFormat(self.template) if self.template else None

    @cached_property
    def plain_formats(self) -> tuple[TextFormat, ...]:
        """Prompt formats that do not use a chat template."""
        return plain_formats(self.tokenizer, self.stop_ids)


def open_prompted(
    path: Path,
    base: Path,
    device: str | None,
    dtype: ComputeDtype,
    console: Console,
    *,
    generation: InferenceDtype = "auto",
) -> PromptedModel:
    """Load a model and convert it to a dtype for inference.

    Args:
        path: model directory or run directory.
        base: path of the base model. If `path` is an adapter that was trained on this base model, it is loaded too.
        device: device to compute on, or None for a GPU if available.
        dtype: data type in which given answers are scored.
        console: console that prints notes.
        generation: weight format in which answers are generated.

    Returns:
        The model.

    Raises:
        DataError: the model does not exist.
        FormatError: the model is damaged.
    """
    of_base = base if is_adapter_of(path, base) else None
    opened, template = open_chat_model(path, device, console, base=of_base, as_stored=False)
    cast_for_inference(opened.model, dtype)
    return PromptedModel(opened.model, opened.tokenizer, template, opened.stop_ids, generation)


@dataclass(frozen=True, slots=True, eq=False)
class FewShotPrompt:
    """A prompt for the questions of a task, which consists of a prompt format, few-shot examples and an instruction.

    Attributes:
        format: prompt format.
        shots: few-shot examples, which precede the question.
        instruction: instruction at the beginning of the prompt; empty if the prompt does not have one.
    """

    format: PromptFormat
    shots: tuple[Example, ...] = ()
    instruction: str = ""

    @property
    def name(self) -> str:
        """Short description of the prompt."""
        shown = f", {len(self.shots)} few-shot examples" if self.shots else ""
        return self.format.name + shown + (", list of labels" if self.instruction else "")

    def with_prompt(self, example: Example) -> Example:
        """Return an example that is preceded by the instruction and the few-shot examples."""
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
        """Render an example with its prompt. The answers of the few-shot examples are excluded from the score."""
        answers = sum(message.role == "assistant" for shot in self.shots for message in shot.messages)
        return _without_scores(self.format.render(self.with_prompt(example)), answers)

    def request(self, example: Example, max_tokens: int) -> GenerationRequest:
        """Return the request that generates an answer to the last question of an example by greedy decoding."""
        return greedy_request(self.format, self.with_prompt(example).messages[:-1], max_tokens)


def generate_answers(
    prompted: PromptedModel,
    prompt: FewShotPrompt,
    examples: Sequence[Example],
    max_tokens: int,
    *,
    advance: Callable[[float], object] = lambda _: None,
) -> list[str]:
    """Generate an answer to the last question of each example by greedy decoding.

    Args:
        prompted: model that answers.
        prompt: prompt for the questions.
        examples: examples that contain the questions.
        max_tokens: maximum number of tokens per answer.
        advance: callback for progress, called with the number of answers generated since the last call.

    Returns:
        One answer per example.
    """
    requests = [prompt.request(example, max_tokens) for example in examples]
    done = complete_all(prompted.model, prompted.tokenizer, requests, dtype=prompted.dtype, advance=advance)
    return [each.text.strip() for each in done]


def default_max_tokens(tokenizer: Tokenizer, references: Sequence[str]) -> int:
    """Return a limit on the number of generated tokens that is sufficient for almost all reference answers."""
    sizes = [len(tokenizer.encode(text)) for text in evenly_spaced(references, 400)]
    return min(_MAX_ANSWER_TOKENS, 8 + int(1.25 * float(np.quantile(sizes, 0.95))))


def answer_bits_per_byte(
    prompted: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example], console: Console
) -> Measure:
    """Return the bits per byte of the reference answers, given their prompts.

    Args:
        prompted: model that scores the answers.
        prompt: prompt for the questions.
        examples: questions with reference answers.
        console: console that prints progress.
    """
    with console.progress("scoring", len(examples), "answers") as bar:
        nll_E = score_responses(prompted.model, prompted.tokenizer, examples, prompt.render, advance=bar.advance).nll_E
    sizes = [sum(len(m.content.encode()) for m in each.messages if m.role == "assistant") for each in examples]
    name = "bits per byte of the answers"
    return mean(name, nll_E / math.log(2), sizes, unit="bits per byte", lower_is_better=True)


def choose_labels(
    prompted: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example], labels: Sequence[str]
) -> list[str]:
    """Return, for each example, the label that is the most likely answer to its last question."""
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

    First, all prompt formats that do not use a chat template are tried. Then, the best of these formats and the chat
    template are tried in all combinations of zero-shot and few-shot prompts, with and without the instruction. If
    `quality` is given, it decides between up to three prompts with low loss.

    Args:
        prompted: model for which the prompt is chosen.
        train: training examples. Some of the training examples serve as few-shot examples, and the remaining ones are
            used to try the prompts.
        instruction: instruction to try, such as the result of `label_instruction`; empty: no instruction is tried.
        quality: function that scores a prompt on examples, where higher is better; default: the prompt with the lowest
            loss is returned.
        advance: callback for progress, called after each of the `num_trials` trials.

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
    # Few-shot examples lower the loss of most models, but only generated answers show whether few-shot examples help.
    # Therefore, the finalists include both a few-shot prompt and a zero-shot prompt, if both have a finite loss.
    finalists = ranked[: _NUM_FINALISTS - 1]
    rest = ranked[_NUM_FINALISTS - 1 :]
    finalists += next(([prompt] for prompt in rest if prompt.shots != ranked[0].shots), ranked[2:3])
    return best_candidate(finalists, lambda prompt: -quality(prompt, tried))[0]


def default_prompt(prompted: PromptedModel, instruction: str = "") -> FewShotPrompt:
    """Return the prompt to use if there are no training examples.

    The prompt has the format of the chat template, or the format "Q: ..." and "A: ..." if the model does not have a
    chat template.
    """
    return FewShotPrompt(prompted.chat_format or prompted.plain_formats[0], instruction=instruction)


def num_trials(prompted: PromptedModel, instruction: str = "") -> int:
    """Return how many trials `best_prompt` runs, as the total of a progress bar."""
    leading = 1 + (prompted.template is not None)
    return len(prompted.plain_formats) + leading * (4 if instruction else 2)


def label_instruction(labels: Sequence[str], *, multi_label: bool = False) -> str:
    """Return an instruction that lists the labels to answer with.

    The instruction is empty if there are no labels or more than 60 labels.

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
    """Return training examples for trying prompts, evenly spaced over `train`."""
    few = evenly_spaced(train, _MAX_TRIALS)
    sizes = [sum(len(tokenizer.encode(message.content)) for message in example.messages) for example in few]
    count = int(_TRIAL_TOKENS * len(few) / max(sum(sizes), 1))
    return evenly_spaced(few, min(_MAX_TRIALS, max(_MIN_TRIALS, count)))


def _shots(prompted: PromptedModel, train: Sequence[Example]) -> tuple[Example, ...]:
    """Choose up to 4 short training examples with distinct answers as few-shot examples."""
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
    """Return the loss on the answers in nats per token.

    The loss is infinite if an example with its prompt exceeds the context length.
    """
    render: Renderer = prompt.render
    if not all(fits(render, example, prompted.model.config.context_length) for example in examples):
        return float("inf")
    nll_E = score_responses(prompted.model, prompted.tokenizer, examples, render).nll_E
    return float(nll_E.sum() / response_tokens(prompted.tokenizer, examples).sum())


def _without_scores(rendered: RenderedConversation, answers: int) -> RenderedConversation:
    """Return the conversation with its first `answers` answers excluded from the score."""
    if not answers:
        return rendered
    cut = [place for place, last in enumerate(rendered.last) if last][answers - 1] + 1
    cut += cut < len(rendered.ends) and rendered.ends[cut]
    scored, last, ends = ([False] * cut + column[cut:] for column in (rendered.scored, rendered.last, rendered.ends))
    return RenderedConversation(rendered.ids, scored, last, ends)
