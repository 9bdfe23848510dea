"""Work on a model: one piece of it streamed to somebody who waits, or many side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.declaration import App
from groundup.apps.prompter import Options, Pair, TextModel
from groundup.apps.steps import AppResult, AppSteps, GenerateStep, ScoreStep, app_steps, prompt_output_pair
from groundup.core.console import Console
from groundup.core.errors import GroundupError, ResourceError
from groundup.hub.resolve import is_classifier, open_chat_model, open_classifier
from groundup.inference import Completion, Engine, GenerationRequest, complete_all
from groundup.inference.likelihood import loglikelihoods, shared_prompt_loglikelihoods
from groundup.tokenizer import ChatTemplate

_SIDE_BY_SIDE = 64  # rows of a table that are under way at a time


def _silent(*_: Any) -> None:
    pass


@dataclass(slots=True, eq=False)
class AppRunner:
    """A model that applications run on.

    Attributes:
        engine: writes what is streamed; other requests of it go on beside.
        together: nobody else needs the model now, so that what can be done in one product is.
        stop_ids: tokens that end what is written together without the template; None: the tokenizer's EOS.
    """

    engine: Engine
    template: ChatTemplate | None
    batched: bool = True
    stop_ids: tuple[int, ...] | None = None
    _running: str | None = None
    _cancelled: bool = False

    @property
    def text_model(self) -> TextModel:
        """What applications need to know of it."""
        context = self.engine.model.config.context_length
        return TextModel(self.engine.tokenizer, self.template, context)

    def run(
        self,
        app: App,
        given: Mapping[str, Any],
        options: Options | None = None,
        *,
        on_text: Callable[[str], object] = _silent,
        on_progress: Callable[[int, int], object] = _silent,
    ) -> AppResult:
        """One piece of work.

        Args:
            on_text: takes the pieces of the output; of JSON as it is written, unlike `AppResult.text`.
            on_progress: takes how many parts of a long input have been read, and of how many.

        Raises:
            ConfigError: wrong inputs, or more than this model can take.
            ResourceError: `cancel` was called.
        """
        steps = app_steps(app, given, self.text_model, options)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: AppResult = end.value
                return result
            if isinstance(step, ScoreStep):
                answer = self._scored(step.pairs)
            elif step.shown:
                answer = self._streamed(step, on_text, on_progress)
            else:
                answer = self._all(step.requests, on_progress)

    def run_many(
        self,
        app: App,
        rows: Sequence[Mapping[str, Any]],
        options: Options | None = None,
        *,
        advance: Callable[[float], object] = _silent,
    ) -> list[AppResult | GroundupError]:
        """The same for many sets of inputs; one that cannot be done gives its error and stops no other."""
        results: list[AppResult | GroundupError] = []
        for start in range(0, len(rows), _SIDE_BY_SIDE):
            batch = [
                _Row(app_steps(app, given, self.text_model, _seeded(options, start + n)))
                for n, given in enumerate(rows[start:][:_SIDE_BY_SIDE])
            ]
            while waiting := [row for row in batch if row.step is not None]:
                done = iter(self._all([request for row in waiting for request in row.requests], _silent))
                nats = iter(self._scored([pair for row in waiting for pair in row.pairs]))
                for row in waiting:
                    scored = isinstance(row.step, ScoreStep)
                    row.advance([next(nats) for _ in row.pairs] if scored else [next(done) for _ in row.requests])
                    if row.step is None:
                        advance(1)
            results += [row.result for row in batch if row.result is not None]
        return results

    def nats(self, app: App, rows: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> list[float]:
        """Minus the natural logarithm of the probability that each output comes of its inputs.

        Raises:
            ConfigError: wrong inputs, or more of them than the context can take.
        """
        pairs = [
            prompt_output_pair(app, given, self.text_model, output) for given, output in zip(rows, outputs, strict=True)
        ]
        return [-logarithm for logarithm in loglikelihoods(self.engine.model, pairs)]

    def cancel(self) -> None:
        """End the work under way; for another thread."""
        self._cancelled = True
        if self._running is not None:
            self.engine.cancel(self._running)

    def _scored(self, pairs: Sequence[Pair]) -> list[float]:
        # Labels share their prompt; and what they are worth alone, each row of a table asks again.
        after: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
        for prompt, ids in pairs:
            after.setdefault(prompt, {})[ids] = 0.0
        for prompt, labels in after.items():
            self._go_on()
            found = shared_prompt_loglikelihoods(self.engine.model, prompt, list(labels))
            labels.update(zip(labels, found, strict=True))
        return [after[prompt][ids] for prompt, ids in pairs]

    def _all(
        self, requests: Sequence[GenerationRequest], on_progress: Callable[[int, int], object]
    ) -> list[Completion]:
        on_progress(0, len(requests))
        if not self.batched:
            done = []
            for number, request in enumerate(requests, 1):
                done.append(self._one(request, _silent))
                on_progress(number, len(requests))
            return done
        ended = 0

        def count(amount: float) -> None:
            nonlocal ended
            ended += int(amount)
            on_progress(ended, len(requests))

        model, tokenizer = self.engine.model, self.engine.tokenizer
        return complete_all(model, tokenizer, requests, stop_ids=self.stop_ids, advance=count)

    def _streamed(
        self, step: GenerateStep, on_text: Callable[[str], object], on_progress: Callable[[int, int], object]
    ) -> list[Completion]:
        done = []
        for number, request in enumerate(step.requests):
            if len(step.requests) > 1:
                on_progress(number, len(step.requests))
            if number:
                on_text("\n\n")
            done.append(self._one(request, on_text))
        if len(step.requests) > 1:
            on_progress(len(step.requests), len(step.requests))
        return done

    def _one(self, request: GenerationRequest, on_text: Callable[[str], object]) -> Completion:
        self._go_on()
        self._running = request.id
        try:
            done = self.engine.complete(request, on_text=on_text)
        finally:
            self._running = None
        self._cancelled |= done.finish_reason == "cancelled"  # by the engine's end
        self._go_on()
        return done

    def _go_on(self) -> None:
        if self._cancelled:
            raise ResourceError("cancelled", rule="work goes on for as long as somebody waits for it", fix="Ask again.")


@dataclass(slots=True, eq=False)
class _Row:
    """One of many pieces of work: where it stands, or how it ended."""

    steps: AppSteps
    step: GenerateStep | ScoreStep | None = None
    result: AppResult | GroundupError | None = None

    def __post_init__(self) -> None:
        self.advance(None)

    @property
    def requests(self) -> tuple[GenerationRequest, ...]:
        return self.step.requests if isinstance(self.step, GenerateStep) else ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return self.step.pairs if isinstance(self.step, ScoreStep) else ()

    def advance(self, answer: Any) -> None:
        try:
            self.step = self.steps.send(answer)
        except StopIteration as end:
            self.step, self.result = None, end.value
        except GroundupError as error:
            self.step, self.result = None, error


def _seeded(options: Options | None, number: int) -> Options | None:
    # Rows of a table must not all draw the same numbers.
    if options is None or options.seed is None:
        return options
    return replace(options, seed=options.seed + number)


def open_runner(model: Path, device: str | None, console: Console, stack: ExitStack) -> AppRunner | ClassifierRunner:
    """Open a classifier, or the language model that `model` means, to run applications on until the stack closes.

    Raises:
        DataError: no model there.
        FormatError: a damaged model.
    """
    if is_classifier(model):
        return ClassifierRunner(open_classifier(model, device=device))
    opened, template = open_chat_model(model, device, console)
    engine = stack.enter_context(Engine(opened.model, opened.tokenizer, stop_ids=opened.stop_ids))
    return AppRunner(engine, template, stop_ids=opened.stop_ids)
