"""`groundup finetune classify`: train a classifier on labeled texts, and compare it with baselines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.artifact import Artifact, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.train.classifier.plan import ClassifierSettings, TrainingResult, train_with_retries
from groundup.train.fine_tuning_method import require_full_for_muon, save_trained_classifier
from groundup.train.run import TrainingRun, drop_checkpoints, training_run
from groundup.train.settings import NOT_IN_FINGERPRINT

if TYPE_CHECKING:
    from groundup.evaluation.classifiers.evaluation import LabelTask
    from groundup.model import SequenceClassifier
    from groundup.train import Trainer
    from groundup.train.classifier.initial_head import LabelLoss
    from groundup.train.fine_tuning_method import Method

EXAMPLE = "groundup finetune classify mails.csv --model runs/notes --out runs/notes/classifier"


class FinetuneClassifyConfig(ClassifierSettings):
    """Settings of `groundup finetune classify`. The data, base model and output directory are required."""

    baseline: bool = setting(
        True, help="compare with a baseline on the same data split: logistic regression on TF-IDF features"
    )


def run(config: FinetuneClassifyConfig, *, console: Console | None = None) -> Artifact:
    """Train and test a classifier, and write it in the format of the transformers library.

    Returns:
        The artifact of the model directory.

    Raises:
        DataError: The base model or the table does not exist, or the table has fewer than two labels.
        ConfigError: A column does not exist, or the values of `bins` are invalid.
    """
    from groundup.data import table_identity
    from groundup.hub.resolve import base_identity
    from groundup.report.tokens_page import tokens_page_only
    from groundup.train.classifier.initial_head import HEAD_FILE, preview

    require_full_for_muon(config.optimizer, config.method, config.model)
    keys = config.model_dump(mode="json", exclude={"data", "test", "model", *NOT_IN_FINGERPRINT})
    if config.preview:
        console = console or Console()
        summary, seen, labels = preview(config, console)
        return tokens_page_only(config.out, "finetune.classify", keys, summary, seen, console, labels)
    inputs = {"model": base_identity(config.model), "data": table_identity(config.data)}
    if config.test is not None:
        inputs["test"] = table_identity(config.test)
    with training_run(config.out, "finetune.classify", keys, inputs, console) as training:
        if not training.finished:
            test_and_save, result = train_with_retries(config, training, partial(_train, config, training))
            test_and_save(result.facts)
        if training.ranks.first:
            drop_checkpoints(config.out)
            (config.out / HEAD_FILE).unlink(missing_ok=True)
    return read(config.out)


def _train(
    config: FinetuneClassifyConfig, run: TrainingRun, rate_scale: float
) -> tuple[Callable[[dict[str, Any]], None], TrainingResult]:
    """Train a new classifier, with all learning rates multiplied by `rate_scale`.

    Returns:
        A function that tests and writes the classifier, given the facts of the training; and the training's result.
    """
    from groundup.data.labels.batches import LabeledBatches, Padding
    from groundup.data.tokens.loader import BatchPlacement
    from groundup.evaluation.classifiers.evaluation import LabelTask
    from groundup.hub.loading import open_model
    from groundup.inference.classification import show_texts
    from groundup.train import Trainer
    from groundup.train.classifier.initial_head import PromptFormats, initial_classifier
    from groundup.train.classifier.plan import ValidationSet, plan_steps, train_classifier
    from groundup.train.fine_tuning_method import make_trainable, resolve_method
    from groundup.train.measurement.machine import machine_of_run

    console, ranks, seed = run.console, run.ranks, config.seed
    opened = open_model(config.model, device="cpu")
    shape = opened.model.config
    formats = PromptFormats.for_context(opened.tokenizer, shape.context_length, config.max_tokens)
    given, test = config.read(formats.tokenizers[0], formats.max_tokens, seed, console)
    validated = bool(config.keep_best or config.early_stopping_patience)
    train, validation = config.split_validation(given, seed, required=validated)
    quiet = Console(quiet=True) if config.keeps_base_frozen(len(train)) else console
    method = resolve_method(config.method, shape, config.lora, quiet)
    # The model is not compiled, because each text length would require another compilation.
    machine = machine_of_run(run, config, shape if method == "full" else None, compile=False)
    epochs = config.epochs_to_train(method, len(train), console)
    model, objective, chosen = initial_classifier(
        opened.model, formats, given, train, config, run, machine, trained=bool(epochs)
    )
    tokenizer, longest = formats.tokenizers[chosen], formats.max_tokens_of(chosen)
    task = LabelTask.of(given, (train, validation, test), tokenizer, longest, seed=seed)
    if cut := task.train.n_truncated + task.test.n_truncated:
        total = len(task.train) + len(task.test)
        console.warn(f"{cut:,} of {total:,} texts are longer than {formats.max_tokens:,} tokens and are truncated.")
    show_texts(tokenizer, train, longest, console, max_shown=1)
    make_trainable(model, method, config.lora, seed)
    trainer = Trainer(model, objective, config, run, machine=machine, label="fine-tuning")
    place = BatchPlacement(ranks.rank, ranks.size, machine.device)
    padding, rows = Padding(tokenizer.pad_id, longest), config.batch_size
    batches = LabeledBatches(
        task.train.ids, task.train.targets, batch_size=rows, padding=padding, seed=seed, place=place
    )
    throughput = task.throughput((run.saved_plan() or {})["seconds_per_token"])
    rates = config.rates(method, shape.dim, rate_scale)
    steps = plan_steps(config, batches, epochs, rates, throughput, digest=run.work.fingerprint) if epochs else None
    validation_set = ValidationSet(partial(task.validation_error, model), len(validation))
    result = train_classifier(trainer, config, batches, validation_set, steps)
    loss = None if epochs else objective
    return partial(_test_and_save, config, trainer, task, method, opened.directory, loss), result


def _test_and_save(
    config: FinetuneClassifyConfig,
    trainer: Trainer[SequenceClassifier, Any],
    task: LabelTask,
    method: Method,
    base: Path,
    loss: LabelLoss | None,
    facts: dict[str, Any],
) -> None:
    """Test the classifier, and write it with `artifact.json`."""
    from groundup.data.training_hashes import save_training_hashes
    from groundup.evaluation.classifiers.evaluation import save_and_test
    from groundup.hub import finish_model
    from groundup.hub.model_card import show_licenses

    run, machine, console, out = trainer.run, trainer.machine, trainer.run.console, trainer.run.directory
    model = trainer.gathered()
    if not run.ranks.first:
        return
    save = partial(save_trained_classifier, method, out, model, base, task.tokenizer, task.labels)
    files, found = save_and_test(task, out, model, save, machine, console, tfidf=config.baseline, lexical_loss=loss)
    facts = facts | found | {"data_licenses": show_licenses(config.data, base, console)}
    facts |= {"base": str(base)} if method == "lora" else {}
    finish_model(run.work, facts, [*files, run.plan_file, save_training_hashes(out, task.given.texts)], base=base)
