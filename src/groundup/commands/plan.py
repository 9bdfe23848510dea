"""`groundup plan`: estimate size, time, memory, cost and quality of a training run before it starts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.train.initial_model import ShapeConfig, given_shape

if TYPE_CHECKING:
    from groundup.train.planner.estimate import Estimator
    from groundup.train.planner.hardware import Hardware

EXAMPLE = "groundup plan runs/notes/tokens --minutes 10"


class PlanConfig(Config):
    """Settings of `groundup plan`. Without time, size, tokens, quality and budget, several times are compared."""

    text: Path | None = setting(None, help="token shards, corpus, run, or folder of plain text", positional=True)
    text_bytes: float | None = setting(None, help="size of the text in bytes, instead of TEXT", flag=True, gt=0)
    minutes: float | None = setting(None, help="training time in minutes", flag=True, gt=0)
    parameters: float | None = setting(None, help="number of parameters, such as 175e9", flag=True, gt=0)
    tokens: float | None = setting(None, help="number of training tokens", flag=True, gt=0)
    bits_per_byte: float | None = setting(None, help="bits per byte of held-out text to reach", flag=True, gt=0)
    budget_dollars: float | None = setting(None, help="budget for GPUs in dollars", flag=True, gt=0)
    gpu: str | None = setting(None, help="kind of GPU: v100, a100, h100 or h200; default: this machine", flag=True)
    gpus: int = setting(1, help="number of GPUs", flag=True, gt=0)
    price: float | None = setting(None, help="dollars per GPU and hour; default: usual prices", flag=True, gt=0)
    utilization: float | None = setting(None, help="MFU of the GPUs [0.4]", flag=True, gt=0, le=1)
    measure: bool = setting(True, help="measure training steps, and train small models on token shards", flag=True)
    ladder: float | None = setting(
        None, help="fit the scaling law to short runs on TEXT for this many minutes", flag=True, gt=0
    )
    vocab_size: int | None = setting(None, help="vocabulary size; default: by text size", flag=True, gt=0)
    shape: ShapeConfig = setting(ShapeConfig(), help="architecture of the model; keys that are not set are derived")

    @model_validator(mode="after")
    def _consistent(self) -> PlanConfig:
        if self.text is not None and self.text_bytes is not None:
            raise ConfigError("TEXT and text_bytes are both set", fix="Remove one of them.")
        if self.ladder is not None and self.text is None:
            raise ConfigError("ladder is set without TEXT", fix="Give the output directory of groundup tokenize.")
        given = [name for name in ("budget_dollars", "price", "utilization") if getattr(self, name)]
        if self.gpu is None and (name := given[0] if given else "gpus" if self.gpus > 1 else ""):
            raise ConfigError(f"{name} is set without a GPU", fix="Add --gpu, e.g. --gpu h100.")
        return self


def run(
    config: PlanConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], object] | None = None,
    json_lines: bool = False,
) -> dict[str, Any]:
    """Estimate a training run, and return and print the estimate as a table or as one JSON object.

    Args:
        config: Settings of the command.
        console: Console for notes and warnings.
        on_text: Function that receives the output.
        json_lines: Whether to print JSON instead of a table.

    Raises:
        ConfigError: The values contradict each other, or cannot be reached.
        DataError: The text does not exist.
    """
    console = console or Console()
    targets = (config.minutes, config.parameters, config.tokens, config.bits_per_byte, config.budget_dollars)
    table = not any(targets)
    if table and config.text is None and config.text_bytes is None:
        raise ConfigError("no text, time, size, tokens, quality or budget is set", fix="Set one, e.g. --minutes 10.")
    if config.gpu is None:  # printed before torch is imported, which takes seconds
        console.note("Benchmarking this machine. The first time, this also compiles the C++ kernels.")
    from groundup.train.measurement.prediction_history import read_runs
    from groundup.train.planner.estimate import PlanTarget
    from groundup.train.planner.estimate_table import as_table

    target = PlanTarget(minutes=10) if table else PlanTarget(*targets)
    _fit_law(config, console)
    estimator = _estimator(config, target, console)
    facts: dict[str, Any] = {} if table else estimator.estimate(target).to_json()
    if config.text is not None or config.text_bytes is not None:
        facts["by_minutes"] = [each.to_json() for each in estimator.by_minutes()]
    if config.gpu is None:
        facts["history"] = read_runs()
    if on_text is not None:
        on_text((json.dumps(facts) if json_lines else as_table(facts)) + "\n")
    return facts


def _fit_law(config: PlanConfig, console: Console) -> None:
    """Fit the scaling law to the text with short runs of `groundup pretrain`, and save it with the token shards."""
    from groundup.commands.pretrain import PretrainConfig
    from groundup.commands.pretrain import run as pretrain
    from groundup.train.measurement.ladder import fit_ladder
    from groundup.train.measurement.training_text import is_tokenized, token_shards_of

    if config.text is None or (config.ladder is None and not (config.measure and is_tokenized(config.text))):
        return
    shards = token_shards_of(config.text)

    def train(layers: int, length: Mapping[str, float]) -> Mapping[str, Any]:
        shape = (config.shape if config.ladder else ShapeConfig()).model_copy(update={"n_layers": layers})
        with tempfile.TemporaryDirectory(prefix="groundup-plan-") as directory:
            keys = {"token_shards": shards.directory, "out": Path(directory) / "run", "num_teachers": 0}
            return pretrain(PretrainConfig(shape=shape, **keys, **length), console=console.progress_only()).facts

    fit_ladder(shards, train, config.ladder, console)


def _estimator(config: PlanConfig, target: Any, console: Console) -> Estimator:
    """Return an estimator for the text and the hardware of the settings."""
    from groundup.tokenizer.vocabulary import vocab_size_for
    from groundup.train.planner.estimate import Estimator, Text
    from groundup.train.planner.hardware import rented_gpus
    from groundup.train.planner.law import DEFAULT_LAW

    given = given_shape(config.shape)
    known, law = given.pop("vocab_size", None), DEFAULT_LAW
    text = Text(round(config.text_bytes) if config.text_bytes else None)
    if config.text is not None:
        from groundup.train.measurement.training_text import read_training_text

        found = read_training_text(config.text)
        law, text, known = found.law, found.text, found.vocab_size or known
        if found.skipped:
            console.note(f"{found.skipped:,} files are not plain text and are not counted. Run groundup collect first.")
    size = text.bytes_for(config.tokens or 20 * (config.parameters or 2e6))
    vocab_size = config.vocab_size or known or vocab_size_for(round(size))

    def estimator(hardware: Hardware) -> Estimator:
        memory = hardware.memory_bytes if hardware.price is None else None
        return Estimator(given, vocab_size, text, hardware, law, None if config.parameters else memory)

    if config.gpu is not None:
        return estimator(rented_gpus(config.gpu, config.gpus, price=config.price, utilization=config.utilization))
    from groundup.train.measurement.calibration import this_machine

    machine = this_machine(lambda each: estimator(each).estimate(target), measure=config.measure, console=console)
    return estimator(machine)
