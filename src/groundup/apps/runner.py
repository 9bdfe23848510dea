"""Running of applications on a language model: a single input with streaming, or many inputs in a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup.apps.application_models import trained_application
from groundup.apps.classifier_runner import ClassifierRunner
from groundup.apps.declaration import App
from groundup.apps.prompter import Options, Pair, TextModel
from groundup.apps.steps import AppResult, AppSteps, GenerateStep, ScoreStep, app_steps, prompt_output_pair
from groundup.core.console import Console
from groundup.core.errors import GroundupError, ResourceError
from groundup.hub.loading import open_chat_model, open_classifier
from groundup.hub.resolve import is_classifier
from groundup.inference import Completion, Engine, GenerationRequest
from groundup.inference.likelihood import loglikelihoods, shared_prompt_loglikelihoods
from groundup.tokenizer import ChatTemplate

_BATCH_ROWS = 64


def _silent(*_: Any) -> None:
    pass


@dataclass(slots=True, eq=False)
class AppRunner:
    """Runs applications on a language model.

    Attributes:
        engine: Engine that generates streamed outputs. It can process other requests at the same time.
        template: Chat template of the model, or None if it is a base model.
        batched: Whether to generate in batches in the calling thread. In this case, nothing else may use the engine.
        directory: Model directory or GGUF file. None for a model that has no files.
    """

    engine: Engine
    template: ChatTemplate | None
    batched: bool = True
    directory: Path | None = None
    _trained_for: str = ""
    _running: str | None = None
    _cancelled: bool = False

    def __post_init__(self) -> None:
        self._trained_for = trained_application(self.directory) if self.directory is not None else ""

    @property
    def text_model(self) -> TextModel:
        """Properties of the model that influence the prompts."""
        context = self.engine.model.config.context_length
        return TextModel(self.engine.tokenizer, self.template, context, self._trained_for)

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(each.numel() for each in self.engine.model.parameters())

    def run(
        self,
        app: App,
        given: Mapping[str, Any],
        options: Options | None = None,
        *,
        on_text: Callable[[str], object] = _silent,
        on_progress: Callable[[int, int], object] = _silent,
    ) -> AppResult:
        """Run an application on one set of inputs.

        Args:
            app: Application to run.
            given: Maps input names to values.
            options: Generation settings that override the settings of the application.
            on_text: Function that is called with each piece of the output. JSON output is streamed as JSON and not as
                readable text.
            on_progress: Function that is called with the number of finished chunks and the total number of chunks of a
                long input.

        Raises:
            ConfigError: An input is invalid, or the inputs are too long for the context.
            ResourceError: `cancel` was called during the run.
        """
        steps = app_steps(app, given, self.text_model, options)
        answer: Any = None
        streamed = False
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                result: AppResult = end.value
                if app.output.kind == "text" and not streamed:
                    on_text(result.text)
                return result
            if isinstance(step, ScoreStep):
                answer = self._scored(step.pairs)
            elif step.shown:
                streamed = True
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
        """Run an application on many rows. If a row is invalid, its result is the error, and other rows are still run.

        Args:
            app: Application to run.
            rows: Inputs for each row.
            options: Generation settings that override the settings of the application.
            advance: Function that is called with 1 after each row.
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
        """Return the negative log-likelihood of a given output for each row, in nats.

        Args:
            app: Application that builds the prompts.
            rows: Inputs for each row.
            outputs: Given output for each row.

        Raises:
            ConfigError: An input is invalid, or the inputs are too long for the context.
        """
        pairs = [
            prompt_output_pair(app, given, self.text_model, output) for given, output in zip(rows, outputs, strict=True)
        ]
        return [-logarithm for logarithm in loglikelihoods(self.engine.model, pairs)]

    def cancel(self) -> None:
        """Cancel the application that is running. Another thread calls this method."""
        self._cancelled = True
        if self._running is not None:
            self.engine.cancel(self._running)

    def _scored(self, pairs: Sequence[Pair]) -> list[float]:
        # Different labels of a text share one prompt, and all rows of a table share the neutral prompts.
        # Therefore each distinct pair is scored only once.
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

        return self.engine.complete_all(requests, advance=count)

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
        self._cancelled |= done.finish_reason == "cancelled"  # "cancelled" here means that the engine was closed
        self._check_cancelled()
        return done

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise ResourceError("cancelled", fix="Send the request again.")


@dataclass(slots=True, eq=False)
class _Row:
    """The state of a row while a batch is processed."""

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
    # Each row has a different seed. With the same seed, all rows would use the same random numbers.
    if options is None or options.seed is None:
        return options
    return replace(options, seed=options.seed + number)


def open_runner(model: Path, device: str | None, console: Console, stack: ExitStack) -> AppRunner | ClassifierRunner:
    """Open a classifier or a language model, and return a runner for it.

    Args:
        model: Directory of a model or of a run.
        device: Device, such as "cuda". Default: a GPU if one is available.
        console: Console for messages.
        stack: Exit stack that closes the model.

    Raises:
        DataError: The directory does not contain a model.
        FormatError: A file of the model is damaged.
    """
    if is_classifier(model):
        return ClassifierRunner(open_classifier(model, device=device))
    opened, template = open_chat_model(model, device, console)
    return AppRunner(stack.enter_context(Engine.of(opened)), template, directory=opened.directory)
