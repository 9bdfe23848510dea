"""`groundup finetune classify`: a labelled table and a language model to a classifier, scored beside baselines."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.core.artifact import Artifact, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.corpus import Source
from groundup.train.adapters import Method, make_trainable, require_full_for_muon, save_labelling, settle_method
from groundup.train.learning_rates import classifier_rates, show_rates
from groundup.train.run import TrainingRun, drop_checkpoints, training_run
from groundup.train.settings import NOT_IN_FINGERPRINT, FineTuningSettings

if TYPE_CHECKING:
    from groundup.data.labelled import Labelled
    from groundup.data.xray import Seen
    from groundup.evaluation.labelling import LabelTask, Metric
    from groundup.kernels import Machine
    from groundup.tokenizer import Tokenizer
    from groundup.train.initial_head import PromptFormats

_SHOWN = 40  # texts, on the page of what is trained
_GENTLER = "gentler"  # in the plan: what the learning rates are multiplied by, after tuning came apart
_GENTLEST = 0.25
_FEW = 500  # texts, below which no text is held out to decide whether training helps
_FITTED_HEAD = 0.25  # of LoRA's default rates: at 0.004 the loss of a fitted head rises from 0.6 to 1.0 at step 2
_RATES = ("learning_rate", "learning_rate_scale")
_TRAINING = (*_RATES, "method", "epochs", "minutes", "lora", "keep_best", "patience", "optimizer")  # ask for training


class FinetuneClassifyConfig(FineTuningSettings):
    """A table of texts with labels; columns, split, epochs and learning rates have defaults that are shown."""

    data: Path | list[Source] = setting(help="table with texts and labels, or a list of sources", positional=True)
    test: Path | list[Source] | None = setting(None, help="table to test on; default: a part of the data", flag=True)
    test_fraction: float = setting(0.2, help="of each label, held out where no test table is given", gt=0, lt=1)
    limit: int | None = setting(None, help="learn from at most so many texts, drawn from all labels", ge=2)
    text: str | None = setting(None, help='column with the text, or a template like "{subject}\\n{body}"', flag=True)
    label: str | None = setting(None, help="column with the label", flag=True)
    separator: str | None = setting(
        None, help='what stands between labels where a cell names several, e.g. ";"; lists need none'
    )
    bins: tuple[float, ...] = setting((), help="thresholds that label numbers", flag=True)
    bin_names: tuple[str, ...] = setting((), help="their names, low to high", flag=True)
    merge: dict[str, str] = setting({}, help="labels that count as another one")
    text_after: str = setting("", help="leave out what stands before this, such as a mail's head")
    max_tokens: int | None = setting(None, help="longer texts lose their end; default: see cut_long", ge=2)
    cut_long: bool = setting(False, help="cut texts that are longer than the context, instead of not learning them")
    balance: bool = setting(False, help="let all labels count alike, however many texts they have")
    set_apart: float = setting(
        0.1, help="of the texts to learn from, to fit the probabilities on; none if fewer than 50", ge=0, lt=1
    )
    keep_best: Literal["loss", "accuracy", "macro_f1"] | None = setting(
        None, help="keep the state that is best by this on the texts set apart; default: the last one"
    )
    batch_size: int = setting(32, help="texts in an optimizer step", gt=0)
    learning_rate_scale: float | None = setting(
        None, help="factor on this command's default rates, instead of learning_rate", gt=0, allow_inf_nan=False
    )
    weight_decay: float = setting(0.0, help="decoupled, on the 2-D weights in the layers", ge=0)
    label_smoothing: float = setting(
        0.1, help="share of the probability spread over all labels, where each text has one", ge=0, lt=1
    )
    baseline: bool = setting(True, help="compare with TF-IDF and logistic regression on the same split")
    warmup_ratio: float = setting(0.1, help="share of the steps in which the rate rises from 0", ge=0, le=1)
    decay_ratio: float = setting(1.0, help="share of the steps in which it falls to 0; 0: constant rate", ge=0, le=1)


def run(config: FinetuneClassifyConfig, *, console: Console | None = None) -> Artifact:
    """Train until all epochs are done, test, and leave a classifier that transformers loads.

    Raises:
        DataError: no model or table there, or no two labels in it.
        ConfigError: a column that is not there, thresholds that are none.
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
        while not training.finished and not _tune(config, training):
            pass
        if training.ranks.first:
            drop_checkpoints(config.out)
            (config.out / HEAD_FILE).unlink(missing_ok=True)
    return read(config.out)


def _tune(config: FinetuneClassifyConfig, run: TrainingRun) -> bool:
    """Tune, test, and leave the classifier with its artifact.

    Returns:
        Whether it is there; else it came apart, and is to be tuned again, at half the rates.
    """
    from groundup.data.label_batches import LabelledBatches, Padding, label_targets
    from groundup.data.label_parts import split_validation
    from groundup.data.learned import save_learned
    from groundup.evaluation.labelling import LabelTask, save_and_test, significantly_worse
    from groundup.hub.resolve import open_model
    from groundup.kernels import place
    from groundup.model import SequenceClassifier
    from groundup.model.flops import IDLE_BYTES, training_bytes
    from groundup.model.lora import adapter_parameters
    from groundup.optim import WarmupStableDecay
    from groundup.train import Selection, Trainer, TrainingSteps
    from groundup.train.initial_head import PromptFormats, initialize_head, log_head
    from groundup.train.objectives.classification import label_objective

    console, ranks, out = run.console, run.ranks, run.directory
    opened = open_model(config.model, device="cpu")
    formats = PromptFormats.for_context(opened.tokenizer, opened.model.config.context_length, config.max_tokens)
    given, tested = _examples(config, formats, console)
    labels = list(given.counts())
    learned, deciding = split_validation(given, config.set_apart, config.seed)
    few = _too_few_to_train(config, len(learned))
    method = settle_method(config.method, opened.model.config, config.lora, Console(quiet=True) if few else console)
    if (config.keep_best or config.patience) and not len(deciding):
        raise ConfigError(
            f"keep_best and patience with {len(given):,} texts, of which {config.set_apart:g} are fewer than 50",
            rule="the best state is chosen on texts that are not learned",
            fix="Give more texts, or raise set_apart.",
        )
    machine, plan, new = _machine(config, run)
    gentler = float(plan.get(_GENTLER, 1))
    model = SequenceClassifier.from_language_model(
        opened.model, len(labels), seed=config.seed, multi_label=given.multi_label
    )
    place(model, machine)
    epochs = _epochs(config, method, few, len(learned), console)
    smoothing = config.label_smoothing if epochs else 0.0
    targets = label_targets(learned, labels)
    objective = label_objective(
        targets, len(labels), multi_label=given.multi_label, label_smoothing=smoothing, balance=config.balance
    )
    chosen = initialize_head(model, formats, learned.texts, targets, objective, run, seed=config.seed)
    tokenizer, longest = formats.tokenizers[chosen], formats.max_tokens_of(chosen)
    task = LabelTask.of(given, (learned, deciding, tested), tokenizer, longest, seed=config.seed)
    if cut := task.train.n_truncated + task.test.n_truncated:
        share = f"{cut:,} of {len(task.train) + len(task.test):,} texts"
        console.warn(f"{share} are longer than {formats.max_tokens:,} tokens: their end is cut off.")
    _show(tokenizer, learned, longest, console, most=1)
    make_trainable(model, method, config.lora, config.seed)
    trainer = Trainer(model, objective, config, run, machine=machine, label="tuning")
    batches = LabelledBatches(
        task.train.ids,
        task.train.targets,
        batch_size=config.batch_size,
        padding=Padding(tokenizer.pad_id, longest),
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.size,
        device=machine.device,
    )

    def missed() -> float:
        with trainer.readable():
            share: float = ranks.told(task.validation_error(model, "accuracy"))
        return share

    missed_before = missed() if len(deciding) else 0.0
    scored_by: Metric = config.keep_best or "loss"
    total_steps = max(1, round(epochs * batches.per_epoch)) if epochs else 0
    gentle = gentler * (_FITTED_HEAD if method != "full" and not _own_rates(config) else 1)
    optimizer = classifier_rates(
        config, dim=model.config.dim, adapted=method != "full", weight_decay=config.weight_decay
    ).scaled(gentle)
    rates = show_rates(config, model, optimizer, console, adapted=method != "full") if total_steps else {}
    head = run.saved_plan() or {}
    end = _end(config, task, head)
    max_steps, total_steps = total_steps, _steps_until(end, total_steps, task, config, head)
    if total_steps:
        steps = TrainingSteps(
            WarmupStableDecay(
                total_steps,
                warmup_steps=max(1, math.floor(config.warmup_ratio * total_steps + 1e-9)),
                decay_steps=math.ceil(config.decay_ratio * total_steps),
            ),
            optimizer,
            total_tokens=batches.texts_in(total_steps),
            unit="texts",
            seconds=end,
            max_steps=max_steps,
            plan_digest=run.work.fingerprint,
        )
        if new:
            row = replace(opened.model.config, context_length=max(map(len, task.train.ids)))
            memory = IDLE_BYTES + training_bytes(row, config.batch_size, trained=adapter_parameters(model))
            largest, usual = batches.batch(batches.largest), batches.batch(batches.usual)
            console.note(trainer.estimate(steps, largest, usual, memory=memory))
        selection = None
        if config.keep_best or config.patience:
            selection = Selection(partial(task.validation_error, model, scored_by), scored_by, config.patience)
        trainer.train(batches.batch, steps, selection=selection)
    elif ranks.first:
        log_head(run.work, head)
    done = trainer.progress.step

    if total_steps and len(deciding) and significantly_worse(missed_before, after := missed(), len(deciding)):
        own_rate = config.learning_rate or config.learning_rate_scale
        again = not own_rate and gentler > _GENTLEST
        then = f"Lower the learning rate: --learning-rate {optimizer.matrix_lr / 2:.2g}."
        console.warn(
            f"{1 - after:.1%} of {len(deciding):,} texts that were not learned get their labels, and "
            f"{1 - missed_before:.1%} did before step 1: tuning came apart. "
            f"{'It begins again, at half the rates.' if again else then}"
        )
        if again:
            if ranks.first:  # checkpoints first: a process killed in between finds none of other rates
                drop_checkpoints(out)
            run.save_plan(**{_GENTLER: gentler / 2})
            return False
    model = trainer.gathered()
    if not ranks.first:
        return True
    saving = partial(save_labelling, method, out, model, opened.directory, tokenizer, labels)
    own = {"base": str(opened.directory)} if method == "lora" else {}
    files, found = save_and_test(task, out, model, saving, machine, console, tfidf=config.baseline)
    facts = own | {"epochs": done / batches.per_epoch, "learning_rates": rates} | found
    run.work.finish(facts, [*files, run.plan_file, save_learned(out, given.texts)])
    return True


def _machine(config: FinetuneClassifyConfig, run: TrainingRun) -> tuple[Machine, dict[str, Any], bool]:
    """Return the machine as the run began with it, the plan so far, and whether the run begins now."""
    from groundup.kernels import Machine
    from groundup.train.trainer import measured_machine

    saved = run.saved_plan()
    if saved is not None:
        return Machine.from_json(saved["machine"]), saved, False
    # Not compiled: lengths differ from batch to batch, and each would be compiled.
    machine = measured_machine(config, run, native=True, compile=False)
    run.save_plan(machine=machine.to_json())
    return machine, {}, True


def _too_few_to_train(config: FinetuneClassifyConfig, texts: int) -> bool:
    """Whether adapters would not learn more from so few texts than the head does, and no setting asks for training."""
    asked = any(getattr(config, name) != type(config).model_fields[name].default for name in _TRAINING)
    return texts < _FEW and not asked


def _epochs(config: FinetuneClassifyConfig, method: Method, few: bool, texts: int, console: Console) -> float:
    """Passes over the texts. A few texts are left to the fitted head on the frozen base, unless training is asked for.

    SmolLM2-135M on 120 messages of 10 domains: 68.5 % accuracy on 200 others with the fitted head, 65.5 % after 8
    epochs of LoRA at 0.001, 60.5 % after 2 at 0.004; TF-IDF 60.5 %.
    """
    from groundup.train.planner.tuning import classifier_epochs

    if method == "merged" and few:
        console.note(
            f"Fewer than {_FEW} texts: the base model stays frozen, only the head is fitted; --epochs 8 trains."
        )
        return 0.0
    return config.epochs or classifier_epochs(texts)


def _own_rates(config: FinetuneClassifyConfig) -> bool:
    return any(getattr(config, name) is not None for name in _RATES)


def _end(config: FinetuneClassifyConfig, task: LabelTask, plan: dict[str, Any]) -> float | None:
    """The stage's time in seconds at which training ends, so that the test fits into the minutes; None: no limit."""
    if config.minutes is None:
        return None
    tested = sum(len(text) for part in (task.validation, task.test) for text in part.ids)
    return max(1.0, 60 * config.minutes - plan["seconds_per_token"] * tested)


def _steps_until(
    end: float | None, steps: int, task: LabelTask, config: FinetuneClassifyConfig, plan: dict[str, Any]
) -> int:
    """The steps that fit before `end`, at three times the cost of the head's fit per token: forward and backward."""
    if end is None or not steps:
        return steps
    tokens = sum(map(len, task.train.ids)) / len(task.train) * config.batch_size
    return max(1, min(steps, int(end / (3 * plan["seconds_per_token"] * tokens))))


def _examples(config: FinetuneClassifyConfig, formats: PromptFormats, console: Console) -> tuple[Labelled, Labelled]:
    from groundup.data.label_parts import SplitRules, read_train_and_test
    from groundup.data.labelled import LabelRules

    columns = LabelRules(
        config.text,
        config.label,
        config.bins,
        config.bin_names,
        merged=config.merge,
        after=config.text_after,
        separator=config.separator,
    )
    max_tokens = None if config.cut_long or config.max_tokens else formats.max_tokens
    rules = SplitRules(config.test_fraction, config.seed, config.limit, max_tokens, config.balance)
    return read_train_and_test(config.data, config.test, columns, rules, formats.tokenizers[0], console)


def _xray(config: FinetuneClassifyConfig, keys: dict[str, Any], console: Console) -> Artifact:
    """Show what would be trained; nothing else is left, and nothing is trained."""
    from groundup.hub import read_config
    from groundup.hub.resolve import load_tokenizer, resolve_model
    from groundup.report.xray_page import xray_only
    from groundup.train.initial_head import PROMPT_AFTER, PROMPT_BEFORE, PromptFormats

    directory = resolve_model(config.model)
    tokenizer, context = load_tokenizer(directory), read_config(directory).context_length
    formats = PromptFormats.for_context(tokenizer, context, config.max_tokens)
    learned, _ = _examples(config, formats, console)
    seen, labels = _show(tokenizer, learned, formats.max_tokens, console, most=3)
    told = f"I read {learned.columns}, {len(learned.counts())} labels, {len(learned):,} texts to learn from."
    if len(formats) > 1:
        told += f" Before step 1 it is tried whether they are better read in {PROMPT_BEFORE}...{PROMPT_AFTER}."
    return xray_only(config.out, "finetune.classify", keys, told, seen, console, labels)


def _show(
    tokenizer: Tokenizer, learned: Labelled, longest: int, console: Console, *, most: int
) -> tuple[list[Seen], list[str]]:
    """Some texts as the model reads them, with their labels."""
    from groundup.data.xray import see_text
    from groundup.inference.classification import encode

    places = range(0, len(learned), max(1, -(-len(learned) // _SHOWN)))
    ids, _ = encode(tokenizer, [learned.texts[place] for place in places], longest)
    whole, _ = encode(tokenizer, [learned.texts[place] for place in places], sys.maxsize)
    seen = [see_text(tokenizer, each, len(all_of_it)) for each, all_of_it in zip(ids, whole, strict=True)]
    labels = [", ".join(learned.sets[place]) for place in places]
    for text, label in zip(seen[:most], labels, strict=False):
        cut = f", {text.cut:,} more at its end cut off" if text.cut else ""
        console.sample(f"a text of {text.counts().total():,} tokens{cut}; its label is {label!r}", text.parts())
    return seen, labels
