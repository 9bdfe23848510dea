"""`groundup finetune classify`: train a classifier on labeled texts, and compare it with baselines."""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.core.artifact import Artifact, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.plural import pluralize
from groundup.train.classifier_plan import ClassifierSettings
from groundup.train.fine_tuning_method import (
    make_trainable,
    require_full_for_muon,
    resolve_method,
    save_trained_classifier,
)
from groundup.train.run import TrainingRun, drop_checkpoints, training_run
from groundup.train.settings import NOT_IN_FINGERPRINT

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
    from groundup.train.initial_head import HEAD_FILE

    require_full_for_muon(config.optimizer, config.method, config.model)
    keys = config.model_dump(mode="json", exclude={"data", "test", "model", "xray", *NOT_IN_FINGERPRINT})
    if config.xray:
        return _xray(config, keys, console or Console())
    inputs = {"model": base_identity(config.model), "data": table_identity(config.data)}
    if config.test is not None:
        inputs["test"] = table_identity(config.test)
    with training_run(config.out, "finetune.classify", keys, inputs, console) as training:
        while not training.finished and not _fine_tune(config, training):
            pass
        if training.ranks.first:
            drop_checkpoints(config.out)
            (config.out / HEAD_FILE).unlink(missing_ok=True)
    return read(config.out)


def _fine_tune(config: FinetuneClassifyConfig, run: TrainingRun) -> bool:
    """Fine-tune and test the classifier, and write it with `artifact.json`.

    Return False if training lowered the validation accuracy; the caller then starts again at lower learning rates.
    """
    from groundup.data.label_batches import LabeledBatches, Padding
    from groundup.data.loader import BatchPlacement
    from groundup.data.training_hashes import save_training_hashes
    from groundup.evaluation.classifier_evaluation import LabelTask, save_and_test
    from groundup.hub import finish_model
    from groundup.hub.loading import open_model
    from groundup.hub.model_card import show_licenses
    from groundup.inference.classification import show_texts
    from groundup.train import Trainer
    from groundup.train.classifier_plan import ValidationSet, saved_machine, train_classifier
    from groundup.train.initial_head import PromptFormats, initial_classifier

    console, ranks, out, seed = run.console, run.ranks, run.directory, config.seed
    opened = open_model(config.model, device="cpu")
    shape, base = opened.model.config, opened.directory
    formats = PromptFormats.for_context(opened.tokenizer, shape.context_length, config.max_tokens)
    given, test = config.read(formats.tokenizers[0], formats.max_tokens, seed, console)
    train, validation = config.split_validation(
        given, seed, required=bool(config.keep_best or config.early_stopping_patience)
    )
    quiet = Console(quiet=True) if config.keeps_base_frozen(len(train)) else console
    method = resolve_method(config.method, shape, config.lora, quiet)
    machine, new = saved_machine(config, run, shape if method == "full" else None)
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
    validated = ValidationSet(partial(task.validation_error, model), len(validation))
    throughput = task.throughput((run.saved_plan() or {})["seconds_per_token"])
    facts = train_classifier(trainer, config, batches, method, validated, throughput, epochs=epochs, new=new)
    if facts is None:
        return False
    model = trainer.gathered()
    if ranks.first:
        save = partial(save_trained_classifier, method, out, model, base, tokenizer, task.labels)
        loss = None if epochs else objective
        files, found = save_and_test(task, out, model, save, machine, console, tfidf=config.baseline, lexical_loss=loss)
        facts["data_licenses"] = show_licenses(config.data, base, console)
        facts |= ({"base": str(base)} if method == "lora" else {}) | found
        finish_model(run.work, facts, [*files, run.plan_file, save_training_hashes(out, given.texts)], base=base)
    return True


def _xray(config: FinetuneClassifyConfig, keys: dict[str, Any], console: Console) -> Artifact:
    """Print training texts and write them to an HTML page, without training."""
    from groundup.hub.loading import load_tokenizer, read_config
    from groundup.hub.resolve import resolve_model
    from groundup.inference.classification import show_texts
    from groundup.report.xray_page import xray_only
    from groundup.train.initial_head import PROMPT_AFTER, PROMPT_BEFORE, PromptFormats

    directory = resolve_model(config.model)
    tokenizer, context = load_tokenizer(directory), read_config(directory).context_length
    formats = PromptFormats.for_context(tokenizer, context, config.max_tokens)
    train, _ = config.read(formats.tokenizers[0], formats.max_tokens, config.seed, console)
    seen, labels = show_texts(tokenizer, train, formats.max_tokens, console, max_shown=3)
    summary = (
        f"Read {train.columns}, {pluralize(len(train.counts()), 'label')}, {pluralize(len(train), 'training text')}."
    )
    if len(formats) > 1:
        summary += f" Before step 1, training compares the prompt {PROMPT_BEFORE}...{PROMPT_AFTER} with the text alone."
    return xray_only(config.out, "finetune.classify", keys, summary, seen, console, labels)
