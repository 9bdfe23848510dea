"""Running applications on a language model: one with streaming, or many in a batch."""

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
from groundup.inference import Completion, Engine, GenerationRequest, complete_all, make_runner
from groundup.inference.likelihood import loglikelihoods, shared_prompt_loglikelihoods
from groundup.tokenizer import ChatTemplate

_BATCH_ROWS = 64


def _silent(*_: Any) -> None:
    pass


@dataclass(slots=True, eq=False)
class AppRunner:
    """Runs applications on a language model.

    Attributes:
        engine: Generates streamed outputs. It can serve other requests at the same time.
        template: Chat template, or None for a base model.
        batched: Generate in batches outside of the engine. Requires that nothing else uses the model.
        stop_ids: Stop tokens for batches without the template. Default: the tokenizer's EOS.
    """

    engine: Engine
    template: ChatTemplate | None
    batched: bool = True
    stop_ids: tuple[int, ...] | None = None
    _running: str | None = None
    _cancelled: bool = False

    @property
    def text_model(self) -> TextModel:
        """The properties of the model that prompts depend on."""
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
        """Run an application.

        Args:
            app: The application.
            given: Inputs.
            options: Overrides of the generation settings.
            on_text: Called with pieces of the output. JSON is streamed as JSON, unlike `AppResult.text`.
            on_progress: Called with the number of finished chunks and of all chunks of a long input.

        Raises:
            ConfigError: An input is invalid, or too long for the context.
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
        """Run an application on many rows. An invalid row gives its error, and does not stop other rows.

        Args:
            app: The application.
            rows: Inputs of each row.
            options: Overrides of the generation settings.
            advance: Called with 1 after each row.
        """
        results: list[AppResult | GroundupError] = []
        for start in range(0, len(rows), _BATCH_ROWS):
            batch = [
                _Row(app_steps(app, given, self.text_model, _seeded(options, start + n)))
                for n, given in enumerate(rows[start:][:_BATCH_ROWS])
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
        """Return the negative log-likelihood of each output in nats.

        Args:
            app: The application.
            rows: Inputs of each row.
            outputs: Output of each row.

        Raises:
            ConfigError: An input is invalid, or too long for the context.
        """
        pairs = [
            prompt_output_pair(app, given, self.text_model, output) for given, output in zip(rows, outputs, strict=True)
        ]
        return [-logarithm for logarithm in loglikelihoods(self.engine.model, pairs)]

    def cancel(self) -> None:
        """Cancel the running application, from another thread."""
        self._cancelled = True
        if self._running is not None:
            self.engine.cancel(self._running)

    def _scored(self, pairs: Sequence[Pair]) -> list[float]:
        # Labels of a text share its prompt, and all rows of a table share the neutral prompts: score each pair once.
        after: dict[tuple[int, ...], dict[tuple[int, ...], float]] = {}
        for prompt, ids in pairs:
            after.setdefault(prompt, {})[ids] = 0.0
        for prompt, labels in after.items():
            self._check_cancelled()
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
        self._check_cancelled()
        self._running = request.id
        try:
            done = self.engine.complete(request, on_text=on_text)
        finally:
            self._running = None
        self._cancelled |= done.finish_reason == "cancelled"  # because the engine was closed
        self._check_cancelled()
        return done

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise ResourceError("cancelled", fix="Send the request again.")


@dataclass(slots=True, eq=False)
class _Row:
    """The state of one row in a batch."""

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
    # Each row has its own seed, otherwise all rows would sample with the same random numbers.
    if options is None or options.seed is None:
        return options
    return replace(options, seed=options.seed + number)


def open_runner(model: Path, device: str | None, console: Console, stack: ExitStack) -> AppRunner | ClassifierRunner:
    """Open a classifier or a language model to run applications on.

    Args:
        model: Model directory or run.
        device: Device, such as "cuda". Default: a GPU if available.
        console: Console for messages.
        stack: Closes the model when it is closed.

    Raises:
        DataError: There is no model.
        FormatError: The model is damaged.
    """
    if is_classifier(model):
        return ClassifierRunner(open_classifier(model, device=device))
    opened, template = open_chat_model(model, device, console)
    forward = make_runner(opened.model)
    engine = stack.enter_context(Engine(opened.model, opened.tokenizer, runner=forward, stop_ids=opened.stop_ids))
    return AppRunner(engine, template, stop_ids=opened.stop_ids)
