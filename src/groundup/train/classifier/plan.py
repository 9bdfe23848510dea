"""Plan and train a classifier, and retry at lower learning rates if training lowers the validation accuracy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from groundup.core.artifact import Work
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.data.labels.parts import LabelSettings
from groundup.train.fine_tuning_method import Method
from groundup.train.learning_rates import classifier_rates, show_rates
from groundup.train.run import TrainingRun, drop_checkpoints, read_plan
from groundup.train.settings import FineTuningSettings

if TYPE_CHECKING:
    from groundup.data.labels.batches import LabeledBatches
    from groundup.model import SequenceClassifier
    from groundup.optim import OptimizerConfig
    from groundup.train.trainer import Trainer, TrainingSteps

T = TypeVar("T")
ClassifierMetric = Literal["loss", "accuracy", "macro_f1"]

# With fewer texts, the validation set is too small to show whether training helps, so only the head is fitted.
MIN_TRAINED_TEXTS = 500
# Factor on LoRA's default learning rates for training that starts from a fitted head. At a learning rate of 0.004, the
# loss of a fitted head rises from 0.6 to 1.0 at step 2.
_FITTED_HEAD_RATE = 0.25
_RATE_SCALE = "rate_scale"  # key in the plan for the factor on the learning rates after a retry
_MIN_RATE_SCALE = 0.25
_RATES = ("learning_rate", "learning_rate_scale")
# If a setting in _TRAINING is not at its default, the model is trained even if there are few texts.
_TRAINING = (*_RATES, "method", "num_epochs", "minutes", "lora", "keep_best", "early_stopping_patience", "optimizer")


class ClassifierSettings(FineTuningSettings, LabelSettings):
    """Settings for the labeled texts and for the training of a classifier."""

    application: str | None = setting(None, help="application that uses the classifier, such as sentiment")
    batch_size: int = setting(32, help="texts per optimizer step", gt=0)
    learning_rate_scale: float | None = setting(
        None, help="factor on the default rates of this command, instead of learning_rate", gt=0, allow_inf_nan=False
    )
    label_smoothing: float = setting(
        0.1, help="probability mass spread over all labels, if each text has one label", ge=0, lt=1
    )
    warmup_ratio: float = setting(0.1, help="fraction of steps with linear warmup of the learning rate", ge=0, le=1)
    decay_ratio: float = setting(1.0, help="fraction of steps with linear decay of the learning rate to 0", ge=0, le=1)
    keep_best: ClassifierMetric | None = setting(
        None, help="validation metric that selects the best checkpoint; default: keep the last checkpoint"
    )

    def keeps_base_frozen(self, num_texts: int) -> bool:
        """Return whether only the head is fitted, because there are few texts and no setting requests training.

        The accuracy of SmolLM2-135M was measured with 120 training messages from 10 domains and 200 test messages:

        - 68.5 % with the fitted head
        - 65.5 % after 8 epochs of LoRA at a learning rate of 0.001
        - 60.5 % after 2 epochs of LoRA at a learning rate of 0.004
        - 60.5 % with the TF-IDF baseline
        """
        asked = any(getattr(self, name) != type(self).model_fields[name].default for name in _TRAINING)
        return num_texts < MIN_TRAINED_TEXTS and not asked

    def epochs_to_train(self, method: Method, num_texts: int, console: Console) -> float:
        """Return the number of epochs, or 0 if only the head is fitted and the base model stays frozen."""
        from groundup.train.planner.fine_tuning import classifier_epochs

        if method == "merged" and self.keeps_base_frozen(num_texts):
            console.note(
                f"Fewer than {MIN_TRAINED_TEXTS} texts: fitting only the head, with a frozen base model. "
                "To train the model, use --num-epochs 8."
            )
            return 0.0
        return self.num_epochs or classifier_epochs(num_texts)

    def rates(self, method: Method, dim: int, scale: float) -> OptimizerConfig:
        """Return the learning rates.

        Args:
            method: Fine-tuning method.
            dim: Hidden size of the model.
            scale: Factor on the learning rates, which is halved by each retry.
        """
        adapted = method != "full"
        if adapted and all(getattr(self, name) is None for name in _RATES):
            scale *= _FITTED_HEAD_RATE
        return classifier_rates(self, dim=dim, adapted=adapted).scaled(scale)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Measured costs, used to plan the number of steps for a time budget.

    Attributes:
        seconds_per_token: Time per token of a forward pass, measured while the head was fitted.
        evaluated_tokens: Total number of tokens of the validation and test sets, which are evaluated after training.
        tokens_per_text: Mean number of tokens per training text.
    """

    seconds_per_token: float
    evaluated_tokens: int
    tokens_per_text: float


def plan_steps(
    settings: ClassifierSettings,
    batches: LabeledBatches,
    epochs: float,
    optimizer: OptimizerConfig,
    throughput: Throughput,
    *,
    digest: str,
) -> TrainingSteps:
    """Return the steps of a run. If `minutes` is set, reserve time for the evaluation after training.

    Args:
        settings: Settings of the run.
        batches: Batches of the training texts.
        epochs: Number of epochs, greater than 0.
        optimizer: Optimizer config with the peak learning rates.
        throughput: Measured costs.
        digest: Fingerprint of the run, used to reject checkpoints of another run.
    """
    from groundup.optim import WarmupStableDecay
    from groundup.train.trainer import TrainingSteps

    planned = steps = max(1, round(epochs * batches.per_epoch))
    end = None
    if settings.minutes is not None:
        end = max(1.0, 60 * settings.minutes - throughput.seconds_per_token * throughput.evaluated_tokens)
        tokens = throughput.tokens_per_text * settings.batch_size
        # A training step runs a forward and a backward pass, and takes about three times as long as a forward pass.
        steps = max(1, min(steps, int(end / (3 * throughput.seconds_per_token * tokens))))
    return TrainingSteps(
        WarmupStableDecay.from_ratios(steps, settings.warmup_ratio, settings.decay_ratio),
        optimizer,
        total_tokens=batches.texts_in(steps),
        unit="texts",
        seconds=end,
        max_steps=planned,
        plan_digest=digest,
    )


def _estimate(
    trainer: Trainer[SequenceClassifier, Any], steps: TrainingSteps, batches: LabeledBatches, rows: int
) -> str:
    """Return a sentence with the estimated training time and memory for batches of `rows` texts."""
    from groundup.model.flops import IDLE_BYTES, training_bytes
    from groundup.model.lora import adapter_parameters
    from groundup.model.quantization import bits_per_weight

    row = replace(trainer.model.config, context_length=batches.longest)
    lora_parameters, bits = adapter_parameters(trainer.model), bits_per_weight(trainer.model)
    memory = IDLE_BYTES + training_bytes(row, rows, lora_parameters=lora_parameters, bits_per_weight=bits)
    return trainer.estimate(steps, batches.batch(batches.largest), batches.batch(batches.typical), memory=memory)


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Number of texts in a validation set, and a function that evaluates the classifier on these texts.

    Attributes:
        error: Returns the error of the current model for a given metric. For the metric "loss" the error is the loss;
            for all other metrics the error is 1 minus the metric.
        num_texts: Number of texts, or 0 if there is no validation set.
    """

    error: Callable[[ClassifierMetric], float]
    num_texts: int


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Result of training a classifier.

    Attributes:
        facts: Results as JSON values.
        learning_rate: Peak learning rate of the 2-D weights.
        error_rates: Error rate on the validation set before and after training, or None if the model was not trained
            or there is no validation set.
        num_texts: Number of validation texts.
    """

    facts: dict[str, Any]
    learning_rate: float = 0.0
    error_rates: tuple[float, float] | None = None
    num_texts: int = 0

    def worse(self) -> bool:
        """Return whether training lowered the validation accuracy significantly."""
        return self.error_rates is not None and significantly_worse(*self.error_rates, self.num_texts)


def train_with_retries(
    settings: ClassifierSettings, run: TrainingRun, train: Callable[[float], tuple[T, TrainingResult]]
) -> tuple[T, TrainingResult]:
    """Train a classifier. While training lowers the validation accuracy, train again at half the learning rates.

    Learning rates that the user set are not changed. The factor on the learning rates is saved in the plan, so that an
    interrupted run resumes with it.

    Args:
        settings: Settings of the run.
        run: The training run.
        train: Trains a new classifier, given the factor on the learning rates.

    Returns:
        The result of the last call of `train`.
    """
    scale = float((run.saved_plan() or {}).get(_RATE_SCALE, 1))
    while True:
        trained, result = train(scale)
        if not result.worse():
            return trained, result
        retry = scale > _MIN_RATE_SCALE and all(getattr(settings, name) is None for name in _RATES)
        _warn_of_lower_accuracy(run.console, result, retry=retry)
        if not retry:
            return trained, result
        del trained  # frees the memory of the model
        scale /= 2
        if run.ranks.first:  # deleted first, because they belong to the old learning rates
            drop_checkpoints(run.directory)
        run.save_plan(**{_RATE_SCALE: scale})


def _warn_of_lower_accuracy(console: Console, result: TrainingResult, *, retry: bool) -> None:
    assert result.error_rates is not None
    before, after = (1 - error for error in result.error_rates)
    advice = f"Lower the learning rate: --learning-rate {result.learning_rate / 2:.2g}."
    console.warn(
        f"Training lowered the validation accuracy from {before:.1%} to {after:.1%} ({result.num_texts:,} texts). "
        f"{'Restarting at half the learning rates.' if retry else advice}"
    )


def train_classifier(
    trainer: Trainer[SequenceClassifier, Any],
    settings: ClassifierSettings,
    batches: LabeledBatches,
    validation: ValidationSet,
    steps: TrainingSteps | None,
) -> TrainingResult:
    """Train a classifier after its head was fitted.

    Args:
        trainer: Trainer of the classifier.
        settings: Settings of the run.
        batches: Batches of the training texts.
        validation: Validation set.
        steps: Steps of the run, or None if only the head is fitted.
    """
    from groundup.model.lora import lora_layers
    from groundup.train.trainer import Selection

    run = trainer.run
    if steps is None:
        if run.ranks.first:
            _log_head(run.work, read_plan(run.plan_file)["head"])
        return TrainingResult({"epochs": 0.0, "learning_rates": {}})

    def error_rate() -> float:
        with trainer.readable():
            rate: float = run.ranks.broadcast_object(validation.error("accuracy"))
        return rate

    assert steps.optimizer is not None
    before = error_rate() if validation.num_texts else 0.0
    adapted = bool(lora_layers(trainer.model))
    rates = show_rates(settings, trainer.model, steps.optimizer, run.console, adapted=adapted)
    if run.work.state == "fresh" and _RATE_SCALE not in (run.saved_plan() or {}):  # the estimate is valid for retries
        run.console.note(_estimate(trainer, steps, batches, settings.batch_size))
    selection, metric = None, settings.keep_best or "loss"
    if settings.keep_best or settings.early_stopping_patience:
        selection = Selection(lambda: validation.error(metric), metric, settings.early_stopping_patience)
    progress = trainer.train(batches.batch, steps, selection=selection)
    facts = {"epochs": progress.step / batches.per_epoch, "learning_rates": rates}
    error_rates = (before, error_rate()) if validation.num_texts else None
    return TrainingResult(facts, steps.optimizer.matrix_lr, error_rates, validation.num_texts)


def _log_head(work: Work, head: Mapping[str, Any]) -> None:
    """Write the metrics log of a run that only fits the head: a single step with the leave-one-out loss."""
    row = {"step": 1, "total_steps": 1, "tokens_seen": head["texts"], "loss": head["nats"], "lr_factor": 0.0}
    row |= {"accuracy": head["accuracy"], "grad_norm": head["grad_norm"], "seconds": work.seconds, "waited": 0.0}
    (work.directory / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")


def significantly_worse(before: float, after: float, num_texts: int) -> bool:
    """Return whether an error rate increased by more than two standard errors.

    Args:
        before: Error rate before training.
        after: Error rate on the same texts after training.
        num_texts: Number of texts.
    """
    standard_error = math.sqrt((before * (1 - before) + after * (1 - after)) / num_texts)
    return after - before > 2 * standard_error
