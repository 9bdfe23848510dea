"""How a classifier is trained: settings, epochs, learning rates, steps, and a retry at lower rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from groundup.core.config import setting
from groundup.core.console import Console
from groundup.data.label_parts import LabelSettings
from groundup.train.adapters import Method
from groundup.train.learning_rates import classifier_rates, show_rates
from groundup.train.run import TrainingRun, drop_checkpoints
from groundup.train.settings import FineTuningSettings

if TYPE_CHECKING:
    from groundup.data.label_batches import LabelledBatches
    from groundup.kernels import Machine
    from groundup.model import SequenceClassifier
    from groundup.optim import OptimizerConfig
    from groundup.train.trainer import Trainer, TrainingSteps

ClassifierMetric = Literal["loss", "accuracy", "macro_f1"]

MIN_TRAINED_TEXTS = 500  # with fewer, there are no texts to decide whether training helps
_FITTED_HEAD_RATE = 0.25  # of LoRA's default rates: at 0.004 the loss of a fitted head rises from 0.6 to 1.0 at step 2
_RATE_SCALE = "gentler"  # in the plan: factor on the learning rates after a retry
_MIN_RATE_SCALE = 0.25
_RATES = ("learning_rate", "learning_rate_scale")
# Settings that ask for training.
_TRAINING = (*_RATES, "method", "epochs", "minutes", "lora", "keep_best", "patience", "optimizer")


class ClassifierSettings(FineTuningSettings, LabelSettings):
    """Labelled texts, and how a classifier is trained on them."""

    batch_size: int = setting(32, help="texts in an optimizer step", gt=0)
    learning_rate_scale: float | None = setting(
        None, help="factor on this command's default rates, instead of learning_rate", gt=0, allow_inf_nan=False
    )
    weight_decay: float = setting(0.0, help="decoupled, on the 2-D weights in the layers", ge=0)
    label_smoothing: float = setting(
        0.1, help="share of the probability spread over all labels, where each text has one", ge=0, lt=1
    )
    warmup_ratio: float = setting(0.1, help="share of the steps in which the rate rises from 0", ge=0, le=1)
    decay_ratio: float = setting(1.0, help="share of the steps in which it falls to 0; 0: constant rate", ge=0, le=1)
    keep_best: ClassifierMetric | None = setting(
        None, help="keep the weights that are best by this on the validation set; default: the last ones"
    )

    def keeps_base_frozen(self, num_texts: int) -> bool:
        """Whether only the head is fitted: the texts are few, and no setting asks for training.

        SmolLM2-135M on 120 messages of 10 domains: 68.5 % accuracy on 200 others with the fitted head, 65.5 % after 8
        epochs of LoRA at 0.001, 60.5 % after 2 at 0.004; TF-IDF 60.5 %.
        """
        asked = any(getattr(self, name) != type(self).model_fields[name].default for name in _TRAINING)
        return num_texts < MIN_TRAINED_TEXTS and not asked

    def num_epochs(self, method: Method, num_texts: int, console: Console) -> float:
        """Return the passes over the texts; 0: the base model stays frozen."""
        from groundup.train.planner.tuning import classifier_epochs

        if method == "merged" and self.keeps_base_frozen(num_texts):
            console.note(
                f"Fewer than {MIN_TRAINED_TEXTS} texts: the base model stays frozen, only the head is fitted; "
                "--epochs 8 trains."
            )
            return 0.0
        return self.epochs or classifier_epochs(num_texts)

    def rates(self, method: Method, dim: int, scale: float) -> OptimizerConfig:
        """Return the learning rates.

        Args:
            dim: Hidden size of the model.
            scale: Factor on them, 0.5 after each retry.
        """
        adapted = method != "full"
        if adapted and all(getattr(self, name) is None for name in _RATES):
            scale *= _FITTED_HEAD_RATE
        return classifier_rates(self, dim=dim, adapted=adapted, weight_decay=self.weight_decay).scaled(scale)


@dataclass(frozen=True, slots=True)
class Throughput:
    """What a budget of minutes has to allow for.

    Attributes:
        seconds_per_token: Of a forward pass, as measured when the head was fitted.
        evaluated_tokens: Tokens of validation and test set, which are read after training.
        tokens_per_text: Mean of the training texts.
    """

    seconds_per_token: float
    evaluated_tokens: int
    tokens_per_text: float


def plan_steps(
    settings: ClassifierSettings,
    batches: LabelledBatches,
    epochs: float,
    optimizer: OptimizerConfig,
    throughput: Throughput,
    *,
    digest: str,
) -> TrainingSteps:
    """Return the steps of a run; with minutes, as many as fit before the test.

    Args:
        epochs: Passes over the texts, above 0.
        digest: Identity of the run.
    """
    from groundup.optim import WarmupStableDecay
    from groundup.train.trainer import TrainingSteps

    planned = steps = max(1, round(epochs * batches.per_epoch))
    end = None
    if settings.minutes is not None:
        end = max(1.0, 60 * settings.minutes - throughput.seconds_per_token * throughput.evaluated_tokens)
        tokens = throughput.tokens_per_text * settings.batch_size
        # Forward and backward pass take three times as long as the forward pass that fitted the head.
        steps = max(1, min(steps, int(end / (3 * throughput.seconds_per_token * tokens))))
    schedule = WarmupStableDecay(
        steps,
        warmup_steps=max(1, math.floor(settings.warmup_ratio * steps + 1e-9)),
        decay_steps=math.ceil(settings.decay_ratio * steps),
    )
    return TrainingSteps(
        schedule,
        optimizer,
        total_tokens=batches.texts_in(steps),
        unit="texts",
        seconds=end,
        max_steps=planned,
        plan_digest=digest,
    )


def _estimate(
    trainer: Trainer[SequenceClassifier, Any], steps: TrainingSteps, batches: LabelledBatches, rows: int
) -> str:
    """Return a sentence with the estimated time and memory of the steps.

    Args:
        rows: Texts of a batch.
    """
    from groundup.model.flops import IDLE_BYTES, training_bytes
    from groundup.model.lora import adapter_parameters
    from groundup.model.quantized import bits_per_weight

    row = replace(trainer.model.config, context_length=batches.longest)
    trained, bits = adapter_parameters(trainer.model), bits_per_weight(trainer.model)
    memory = IDLE_BYTES + training_bytes(row, rows, trained=trained, bits_per_weight=bits)
    return trainer.estimate(steps, batches.batch(batches.largest), batches.batch(batches.usual), memory=memory)


def saved_machine(settings: ClassifierSettings, run: TrainingRun) -> tuple[Machine, bool]:
    """Return the machine as the run began with it, and whether the run begins now."""
    from groundup.kernels import Machine
    from groundup.train.trainer import measured_machine

    saved = run.saved_plan()
    if saved is not None:
        return Machine.from_json(saved["machine"]), False
    # Not compiled: lengths differ from batch to batch, and each would be compiled.
    machine = measured_machine(settings, run, compile=False)
    run.save_plan(machine=machine.to_json())
    return machine, True


@dataclass(frozen=True, slots=True)
class Validation:
    """The validation set of a classifier.

    Attributes:
        error: Metric -> the loss of the model in training, or 1 minus another metric.
        num_texts: Size of the set; 0: there is none.
    """

    error: Callable[[ClassifierMetric], float]
    num_texts: int


def train_classifier(
    trainer: Trainer[SequenceClassifier, Any],
    settings: ClassifierSettings,
    batches: LabelledBatches,
    method: Method,
    validation: Validation,
    throughput: Throughput,
    *,
    epochs: float,
    new: bool,
) -> dict[str, Any] | None:
    """Train a classifier whose head is fitted.

    Args:
        epochs: Passes over the texts; 0: nothing is left to train.
        new: No earlier process began the run.

    Returns:
        Facts of the training as JSON values; None: training made the classifier worse, and the run is to start again
        with the lower rates that its plan has now.
    """
    from groundup.train.initial_head import log_head
    from groundup.train.trainer import Selection

    run, adapted = trainer.run, method != "full"
    plan = run.saved_plan() or {}
    if not epochs:
        if run.ranks.first:
            log_head(run.work, plan)
        return {"epochs": 0.0, "learning_rates": {}}

    def error_rate() -> float:
        with trainer.readable():
            rate: float = run.ranks.broadcast_object(validation.error("accuracy"))
        return rate

    before = error_rate() if validation.num_texts else 0.0
    scale = float(plan.get(_RATE_SCALE, 1))
    optimizer = settings.rates(method, trainer.model.config.dim, scale)
    rates = show_rates(settings, trainer.model, optimizer, run.console, adapted=adapted)
    steps = plan_steps(settings, batches, epochs, optimizer, throughput, digest=run.work.fingerprint)
    if new:
        run.console.note(_estimate(trainer, steps, batches, settings.batch_size))
    selection, metric = None, settings.keep_best or "loss"
    if settings.keep_best or settings.patience:
        selection = Selection(lambda: validation.error(metric), metric, settings.patience)
    progress = trainer.train(batches.batch, steps, selection=selection)
    if validation.num_texts and significantly_worse(before, after := error_rate(), validation.num_texts):
        found = (before, after, validation.num_texts)
        if _lower_rates(settings, run, found, scale, optimizer.matrix_lr):
            return None
    return {"epochs": progress.step / batches.per_epoch, "learning_rates": rates}


def _lower_rates(
    settings: ClassifierSettings, run: TrainingRun, found: tuple[float, float, int], scale: float, rate: float
) -> bool:
    """Report that training made the classifier worse, and halve the rates in the plan; return whether to start again.

    Args:
        found: Validation error of the initial head and after training, and the number of validation texts.
        scale: Factor on the learning rates of this try.
        rate: Its learning rate.
    """
    before, after, count = found
    again = not (settings.learning_rate or settings.learning_rate_scale) and scale > _MIN_RATE_SCALE
    then = f"Lower the learning rate: --learning-rate {rate / 2:.2g}."
    run.console.warn(
        f"Training made the classifier worse: {1 - after:.1%} of {count:,} validation texts get their labels, and "
        f"{1 - before:.1%} did before step 1. {'It starts again at half the rates.' if again else then}"
    )
    if again:
        if run.ranks.first:  # checkpoints first: a process killed in between finds none of other rates
            drop_checkpoints(run.directory)
        run.save_plan(**{_RATE_SCALE: scale / 2})
    return again


def significantly_worse(before: float, after: float, num_texts: int) -> bool:
    """Return whether an error rate has risen by more than two standard errors.

    Args:
        before, after: Error rates on the same `num_texts` texts.
    """
    standard_error = math.sqrt((before * (1 - before) + after * (1 - after)) / num_texts)
    return after - before > 2 * standard_error
