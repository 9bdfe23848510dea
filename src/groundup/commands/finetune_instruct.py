"""`groundup finetune instruct`: instruction tuning (SFT) of a language model on conversations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from groundup.core.artifact import Artifact, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.types import DeciderName
from groundup.data.conversations.reading import InstructionSettings
from groundup.train.fine_tuning_method import (
    make_trainable,
    open_for_chat,
    require_full_for_muon,
    resolve_method,
    save_language_model,
)
from groundup.train.run import TrainingRun, drop_checkpoints, training_run
from groundup.train.settings import NOT_IN_FINGERPRINT, FineTuningSettings

if TYPE_CHECKING:
    from groundup.data import ExampleLoader
    from groundup.data.conversations.instruction import InstructionData
    from groundup.distributed.ranks import Ranks
    from groundup.kernels import Machine

EXAMPLE = "groundup finetune instruct questions.csv --model runs/notes --out runs/notes/chat"


class FinetuneInstructConfig(FineTuningSettings, InstructionSettings):
    """Settings of `groundup finetune instruct`. The data, base model and output directory are required."""

    compile: bool = setting(True, help="compile the layers with torch.compile if the run is long enough")
    keep_best: DeciderName | None = setting(None, help="metric that selects the best checkpoint; default: the last one")
    num_evaluations: int = setting(4, help="number of evaluations and sample answers during training", ge=0)


def run(config: FinetuneInstructConfig, *, console: Console | None = None) -> Artifact:
    """Fine-tune a model, write it with a chat template, and compare it with the base model on the test set.

    Returns:
        The artifact of the model directory.

    Raises:
        DataError: The base model or the examples do not exist, or the examples do not contain any tokens to train on.
        ConfigError: A column does not exist, or the vocabulary lacks the special tokens of the chat template.
    """
    from groundup.apps.application_models import with_application_prompt
    from groundup.data import table_identity
    from groundup.data.conversations.replay import replay_identity
    from groundup.hub.resolve import base_identity

    require_full_for_muon(config.optimizer, config.method, config.model)
    config = with_application_prompt(config)
    keys = config.model_dump(mode="json", exclude={"data", "test", "model", "replay", *NOT_IN_FINGERPRINT})
    if config.preview:
        return _preview(config, keys, console or Console())
    inputs = {"model": base_identity(config.model), "data": table_identity(config.data)}
    if config.replay is not None and config.replay_fraction:
        inputs["replay"] = replay_identity(config.replay)
    if config.test:
        inputs["test"] = table_identity(config.test)
    with training_run(config.out, "finetune.instruct", keys, inputs, console) as training:
        if not training.finished:
            _fine_tune(config, training)
        if training.ranks.first:
            drop_checkpoints(config.out)
    return read(config.out)


def _fine_tune(config: FinetuneInstructConfig, run: TrainingRun) -> None:
    """Plan the run, fine-tune the model, write the model directory, and compare the model with its base model."""
    from groundup.apps.application_models import read_examples
    from groundup.data.conversations.instruction import InstructionData
    from groundup.data.training_hashes import save_training_hashes, training_hashes
    from groundup.evaluation.comparisons.after_training import compare_fine_tuned, load_fine_tuned_and_base
    from groundup.evaluation.during_training import show_answers
    from groundup.evaluation.selection import answer_selection
    from groundup.hub import finish_model
    from groundup.hub.model_card import show_licenses
    from groundup.report.tokens_page import NUM_SHOWN, write_tokens_page
    from groundup.tokenizer import load_chat_template, save_chat
    from groundup.train import Evaluation, Trainer
    from groundup.train.objectives import NextToken
    from groundup.train.planner import micro_batches_per_rank
    from groundup.train.planner.fine_tuning import DEFAULT_EPOCHS
    from groundup.train.planning import fine_tune, plan_fine_tuning

    console, ranks, out, split = run.console, run.ranks, run.directory, read_examples(config, run.console)
    opened, new_rows_from = open_for_chat(config.model, config.method, console)
    model, tokenizer, base = opened.model, opened.tokenizer, opened.directory
    method = resolve_method(config.method, model.config, config.lora, console)
    template, validation = load_chat_template(base, tokenizer), bool(config.keep_best or config.early_stopping_patience)
    context = model.config.context_length
    data = InstructionData.encode(split, config, template, tokenizer, context, console, validation=validation)
    data.show(console)
    make_trainable(model, method, config.lora, config.seed, new_rows_from=new_rows_from)
    loader = partial(_loader, config, data, ranks)
    longest, compiled = data.longest, config.compile
    planned = partial(plan_fine_tuning, config, run, model, NextToken(), loader, longest=longest, compile=compiled)
    machine, plan, new = run.load_or_make_plan(planned)
    trainer = Trainer(model, NextToken(), config, run, machine=machine, label="fine-tuning")
    window = plan.model.context_length
    plan = trainer.fit_micro_batches(plan, lambda rows: loader(window, rows, machine).batch(0)) if new else plan
    batches = loader(window, micro_batches_per_rank(plan.rows, plan.micro_batch_size, ranks.size)[0], machine)
    evaluation = Evaluation(show_answers(model, tokenizer, template, data.test, run), config.num_evaluations)
    selection = answer_selection(config.keep_best, config.early_stopping_patience, model, data)
    epochs = config.num_epochs or DEFAULT_EPOCHS
    facts = fine_tune(trainer, plan, batches, new=new, max_epochs=epochs, evaluation=evaluation, selection=selection)
    trained_model = trainer.gathered()
    if not ranks.first:
        return
    files = [run.plan_file, *save_language_model(method, out, trained_model, base, tokenizer, template.stop_ids)]
    files += [*save_chat(out, template, tokenizer), save_training_hashes(out, split.questions, training_hashes(base))]
    files.append(write_tokens_page(out / "tokens.html", f"{split.found.sentence}.", data.token_views(NUM_SHOWN)))
    del model, trained_model, trainer, opened, planned, evaluation, selection  # frees memory
    fine_tuned, original = load_fine_tuned_and_base(out, base, machine, adapter=method == "lora")
    compared, transcripts = compare_fine_tuned(fine_tuned, original, data, seed=config.seed, console=console)
    facts |= data.facts(batches) | {"held_out": compared.to_json(), "transcripts": transcripts}
    facts |= {"data_licenses": show_licenses(config.data, base, console)}
    facts |= {"base": str(base)} if method == "lora" else {}
    finish_model(run.work, facts, files, base=base)


def _preview(config: FinetuneInstructConfig, keys: dict[str, Any], console: Console) -> Artifact:
    """Print training examples and write them to an HTML page, without training."""
    from groundup.data.conversations.instruction import InstructionData
    from groundup.hub.loading import load_tokenizer, read_config
    from groundup.hub.resolve import resolve_model
    from groundup.report.tokens_page import NUM_SHOWN, tokens_page_only
    from groundup.tokenizer import load_chat_template, with_chat_tokens

    split, directory = config.read(console), resolve_model(config.model)
    tokenizer = with_chat_tokens(load_tokenizer(directory))
    context, template = read_config(directory).context_length, load_chat_template(directory, tokenizer)
    data = InstructionData.encode(split, config, template, tokenizer, context, console)
    data.show(console, max_shown=3)
    summary = f"{split.found.sentence}."
    return tokens_page_only(config.out, "finetune.instruct", keys, summary, data.token_views(NUM_SHOWN), console)


def _loader(
    config: FinetuneInstructConfig, data: InstructionData, ranks: Ranks, context: int, rows: int, machine: Machine
) -> ExampleLoader:
    from groundup.data.tokens.loader import BatchPlacement

    place = BatchPlacement(ranks.rank, ranks.size, machine.device)
    return data.loader(context, rows, cut=config.truncate, seed=config.seed, place=place)
