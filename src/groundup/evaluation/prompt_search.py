"""Prompts for a model that was not fine-tuned for a task, and the search for the best one.

A base model shows what it can do only with a good prompt: in the right format, with examples (few-shot), with an
instruction. The best prompt is found on training examples, never on the test set.

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
from groundup.hub.adapted import belongs_to
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
from groundup.kernels import ComputeDtype, keep_for_reading
from groundup.model import Transformer
from groundup.tokenizer import ChatTemplate, Tokenizer

MAX_QUALITY_EXAMPLES = 16  # training examples on which generated answers are scored, if a quality decides
# Of the examples that each prompt is tried on: the search must take less time than fine-tuning, on a CPU too.
_TRIAL_TOKENS, _MIN_TRIALS, _MAX_TRIALS = 2_500, 8, 48
_MAX_SHOTS = 4
_SHOT_TOKENS = 500  # of all shots together: they are part of every prompt
_SHOT_TRIALS = 12  # prompts with shots are several times as long
_FINALISTS = 3
_MAX_LABELS = 60  # in an instruction


@dataclass(frozen=True, eq=False)
class PromptedModel:
    """A model with what is needed to prompt it.

    Attributes:
        template: None: the model has none.
        stop_ids: tokens that end its text.
    """

    model: Transformer
    tokenizer: Tokenizer
    template: ChatTemplate | None
    stop_ids: tuple[int, ...]

    @cached_property
    def chat_format(self) -> ChatFormat | None:
        """The format of its chat template, if it has one."""
        return ChatFormat(self.template) if self.template else None

    @cached_property
    def plain_formats(self) -> tuple[TextFormat, ...]:
        """The plain formats for its tokenizer."""
        return plain_formats(self.tokenizer, self.stop_ids)


def open_prompted(path: Path, base: Path, device: str | None, dtype: ComputeDtype, console: Console) -> PromptedModel:
    """Open a model to compute in a dtype.

    Args:
        base: the base that an adapter was trained on, if it is this model.

    Raises:
        DataError: no model there.
        FormatError: a damaged model.
    """
    opened, template = open_chat_model(path, device, console, base=base if belongs_to(path, base) else None)
    keep_for_reading(opened.model, dtype)
    return PromptedModel(opened.model, opened.tokenizer, template, opened.stop_ids)


@dataclass(frozen=True, slots=True, eq=False)
class FewShotPrompt:
    """How a question is put to a model.

    Attributes:
        shots: examples with answers that precede the question.
        instruction: precedes everything.
    """

    format: PromptFormat
    shots: tuple[Example, ...] = ()
    instruction: str = ""

    @property
    def name(self) -> str:
        """A description for a person."""
        shown = f", {len(self.shots)} examples shown" if self.shots else ""
        return self.format.name + shown + (", labels named" if self.instruction else "")

    def around(self, example: Example) -> Example:
        """Return an example with everything that precedes it."""
        messages = list(example.messages)
        system = [messages.pop(0).content] if messages[0].role == "system" else []
        first = "\n\n".join([self.instruction, *system] if self.instruction else system)
        whole = [message for shot in self.shots for message in shot.messages if message.role != "system"] + messages
        if first and self.format.takes_system:
            whole.insert(0, Message("system", first))
        elif first:
            whole[0] = Message(whole[0].role, f"{first}\n\n{whole[0].content}")
        return Example(tuple(whole))

    def render(self, example: Example) -> RenderedConversation:
        """Return an example with its prompt; only its own answers are scored, not those in the shots."""
        answers = sum(message.role == "assistant" for shot in self.shots for message in shot.messages)
        return _without_scores(self.format.render(self.around(example)), answers)

    def request(self, example: Example, max_tokens: int) -> GenerationRequest:
        """Return the request for the most likely last answer of an example."""
        return greedy_request(self.format, self.around(example).messages[:-1], max_tokens)


def generate_answers(
    prompted: PromptedModel,
    prompt: FewShotPrompt,
    examples: Sequence[Example],
    max_tokens: int,
    *,
    advance: Callable[[float], object] = lambda _: None,
) -> list[str]:
    """Return the model's answer to the last question of each example."""
    requests = [prompt.request(example, max_tokens) for example in examples]
    done = complete_all(prompted.model, prompted.tokenizer, requests, advance=advance)
    return [each.text.strip() for each in done]


def choose_labels(
    prompted: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example], labels: Sequence[str]
) -> list[str]:
    """Return the label that is the most likely answer to the last question of each example."""
    told = [Example((*example.messages[:-1], Message("assistant", label))) for example in examples for label in labels]
    nll_E = score_responses(prompted.model, prompted.tokenizer, told, prompt.render).nll_E
    return [labels[place] for place in nll_E.reshape(len(examples), len(labels)).argmin(1)]


def best_prompt(
    prompted: PromptedModel,
    train: Sequence[Example],
    *,
    instruction: str = "",
    quality: Callable[[FewShotPrompt, Sequence[Example]], float] | None = None,
    advance: Callable[[float], object] = lambda _: None,
) -> FewShotPrompt:
    """Return the prompt with which a model does best on training examples.

    All plain formats are tried; then the best of them and the chat template, with and without shots, with and without
    the instruction. A quality, if there is one, decides between the three prompts with the lowest loss.

    Args:
        train: examples to show and to try prompts on.
        instruction: such as `label_instruction` returns; "": none is tried.
        quality: of a prompt on examples, higher is better; None: the loss of the answers alone decides.
        advance: called for each of the `num_trials`.
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
        replace(prompt, shots=shown, instruction=said)
        for prompt in leading
        for said in ("", *([instruction] if instruction else []))
        for shown in ((), *([shots] if shots else []))
    ]
    _, losses = best_candidate(prompts, lambda prompt: loss(prompt, few))
    ranked = [prompts[place] for place in np.argsort(losses, kind="stable") if np.isfinite(losses[place])]
    if not ranked:
        return leading[-1]
    if quality is None:
        return ranked[0]
    # Shots lower the loss of most models, but only answers show whether they help: one prompt without shots stays in.
    finalists = ranked[: _FINALISTS - 1]
    rest = ranked[_FINALISTS - 1 :]
    finalists += next(([prompt] for prompt in rest if prompt.shots != ranked[0].shots), ranked[2:3])
    return best_candidate(finalists, lambda prompt: -quality(prompt, tried))[0]


def default_prompt(prompted: PromptedModel, instruction: str = "") -> FewShotPrompt:
    """Return the prompt to use without training examples: the chat template, or otherwise "Q: ..." and "A: ..."."""
    return FewShotPrompt(prompted.chat_format or prompted.plain_formats[0], instruction=instruction)


def num_trials(prompted: PromptedModel, instruction: str = "") -> int:
    """Return how many prompts `best_prompt` tries, for a progress bar."""
    leading = 1 + (prompted.template is not None)
    return len(prompted.plain_formats) + leading * (4 if instruction else 2)


def label_instruction(labels: Sequence[str], *, multi_label: bool = False) -> str:
    """Return the instruction to answer with these labels; "" if there are too many to name, or none.

    Args:
        multi_label: an answer may name several of them.
    """
    if not labels or len(labels) > _MAX_LABELS:
        return ""
    of_these = "those of these that fit, with commas between" if multi_label else "one of these only"
    return f"Answer with {of_these}: {', '.join(labels)}."


def trial_examples(tokenizer: Tokenizer, train: Sequence[Example]) -> Sequence[Example]:
    """Return training examples, evenly spaced, on which prompts are tried."""
    few = evenly_spaced(train, _MAX_TRIALS)
    sizes = [sum(len(tokenizer.encode(message.content)) for message in example.messages) for example in few]
    count = int(_TRIAL_TOKENS * len(few) / max(sum(sizes), 1))
    return evenly_spaced(few, min(_MAX_TRIALS, max(_MIN_TRIALS, count)))


def _shots(prompted: PromptedModel, train: Sequence[Example]) -> tuple[Example, ...]:
    """Return short examples, evenly spaced, with different answers if possible."""
    short = sorted(evenly_spaced(train, 400), key=lambda example: sum(len(m.content) for m in example.messages))
    short = short[: max(_MAX_SHOTS, len(short) // 2)]
    room = min(_SHOT_TOKENS, prompted.model.config.context_length // 4)
    chosen: list[Example] = []
    answers = set[str]()
    for example in evenly_spaced(short, 100):
        answer = example.messages[-1].content
        size = sum(len(prompted.tokenizer.encode(message.content)) for message in example.messages)
        if len(chosen) < _MAX_SHOTS and answer not in answers and size <= room:
            room -= size
            chosen.append(example)
            answers.add(answer)
    return tuple(chosen)


def _loss(prompted: PromptedModel, prompt: FewShotPrompt, examples: Sequence[Example]) -> float:
    """Return nats per token of the answers; infinite if an example with its shots is longer than the context."""
    render: Renderer = prompt.render
    if not all(fits(render, example, prompted.model.config.context_length) for example in examples):
        return float("inf")
    nll_E = score_responses(prompted.model, prompted.tokenizer, examples, render).nll_E
    return float(nll_E.sum() / response_tokens(prompted.tokenizer, examples).sum())


def _without_scores(rendered: RenderedConversation, answers: int) -> RenderedConversation:
    """Return the conversation without the scores of its first answers."""
    if not answers:
        return rendered
    cut = [place for place, last in enumerate(rendered.last) if last][answers - 1] + 1
    cut += cut < len(rendered.ends) and rendered.ends[cut]
    scored, last, ends = ([False] * cut + column[cut:] for column in (rendered.scored, rendered.last, rendered.ends))
    return RenderedConversation(rendered.ids, scored, last, ends)
