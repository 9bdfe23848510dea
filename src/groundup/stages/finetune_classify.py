"""`groundup finetune classify`: a labelled table and a language model to a classifier, scored beside baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.artifact import Artifact, Work, read
from groundup.config import Config, setting
from groundup.console import Console
from groundup.corpus import Source
from groundup.stages._training import (
    NO_PART_OF_THE_RESULT,
    ParallelConfig,
    TrackerName,
    base_identity,
    begun,
    drop_checkpoints,
    spread_out,
    train,
)

if TYPE_CHECKING:
    from groundup.evals.classification import Floats
    from groundup.examples.labelled import Labelled
    from groundup.ranks import Ranks

_SAMPLES = 12  # of test texts in the facts, for the report
_SAMPLE_CHARACTERS = 300


class FinetuneClassifyConfig(Config):
    """A table of texts with labels; columns, split, epochs and learning rates have defaults that are shown."""

    data: Path | list[Source] = setting(help="table with texts and labels, or a list of sources", positional=True)
    model: Path = setting(help="language model to start from: a directory, or a run", flag=True)
    out: Path = setting(help="directory for the classifier", flag=True)
    test: Path | list[Source] | None = setting(None, help="table to test on; default: a part of the data", flag=True)
    test_fraction: float = setting(0.2, help="of each label, held out where no test table is given", gt=0, lt=1)
    text: str | None = setting(None, help='column with the text, or a template like "{subject}\\n{body}"', flag=True)
    label: str | None = setting(None, help="column with the label", flag=True)
    bins: tuple[float, ...] = setting((), help="thresholds that make labels of a column of numbers", flag=True)
    bin_names: tuple[str, ...] = setting((), help="names of these labels, from low to high", flag=True)
    merge: dict[str, str] = setting({}, help="labels that count as another one")
    text_after: str = setting("", help="leave out what stands before this, such as a mail's head")
    max_tokens: int | None = setting(None, help="longer texts lose their end; default: the model's context", ge=2)
    epochs: float | None = setting(None, help="times to see each text; default: fewer, the more texts", flag=True, gt=0)
    batch_size: int = setting(32, help="texts in an optimizer step", gt=0)
    matrix_lr: float = setting(0.01, help="Muon's learning rate, for the matrices inside the layers", gt=0)
    embedding_lr: float = setting(0.005, help="AdamW's, for the token embeddings", gt=0)
    head_lr: float = setting(0.003, help="AdamW's, for the new head", gt=0)
    vector_lr: float = setting(0.002, help="AdamW's, for norms and biases", gt=0)
    weight_decay: float = setting(0.0, help="on Muon's matrices", ge=0)
    label_smoothing: float = setting(0.0, help="share of the probability spread over all labels", ge=0, lt=1)
    baseline: bool = setting(True, help="compare with TF-IDF and logistic regression on the same split")
    seed: int = setting(0, help="of the split, the head and the order of texts", flag=True, ge=0)
    threads: int | None = setting(None, help="CPU threads; default: one a core", gt=0)
    parallel: ParallelConfig = setting(ParallelConfig(), help="how the ranks that torchrun starts share the work")
    checkpoint_seconds: float = setting(30.0, help="save the state of the run this often", ge=0)
    skip_spikes: bool = setting(True, help="skip steps whose loss is far above those before")
    log_to: tuple[TrackerName, ...] = setting((), help="draw curves with tensorboard, wandb or trackio, too")


def run(config: FinetuneClassifyConfig, *, console: Console | None = None) -> Artifact:
    """Train until all epochs are done, test, and leave a classifier that transformers loads.

    Raises:
        DataError: no model or table there, or no two labels in it.
        ConfigError: a column that is not there, thresholds that are none.
    """
    from groundup.examples import table_identity

    console = console or Console()
    keys = config.model_dump(mode="json", exclude={"data", "test", "model", *NO_PART_OF_THE_RESULT})
    inputs = {"model": base_identity(config.model), "data": table_identity(config.data)}
    if config.test is not None:
        inputs["test"] = table_identity(config.test)
    with begun(config.out, "finetune.classify", keys, inputs, console) as (work, ranks, console):
        if work.state != "done":
            _tune(config, work, ranks, console)
        if ranks.first:
            drop_checkpoints(config.out)
    return read(config.out)


def _tune(config: FinetuneClassifyConfig, work: Work, ranks: Ranks, console: Console) -> None:
    """Tune, test, and leave the classifier with its artifact."""
    from groundup.checkpoint import save_classifier
    from groundup.checkpoint.resolve import MODEL_MAX_LENGTH, open_classifier, open_model
    from groundup.evals.classification import compare, predict, score
    from groundup.files import read_json, write_json
    from groundup.model import SequenceClassifier
    from groundup.objectives.classification import Classification, LabelledBatches, encode, usual_epochs
    from groundup.optim import OptimizerConfig, WarmupStableDecay
    from groundup.parallel import Machine, measure_machine

    learned, tested = _examples(config, console)
    labels = list(learned.counts())
    opened = open_model(config.model, device="cpu")
    tokenizer, context = opened.tokenizer, opened.model.config.context_length
    longest = min(config.max_tokens or context, context)
    (texts, cut), (tests, cut_tests) = (encode(tokenizer, part.texts, longest) for part in (learned, tested))
    if cut + cut_tests:
        share = f"{cut + cut_tests:,} of {len(texts) + len(tests):,} texts"
        console.warn(f"{share} are longer than {longest} tokens: their end is cut off.")

    plan_file = config.out / "plan.json"
    if ranks.first and not plan_file.is_file():
        # Not compiled: lengths differ from batch to batch, and each would be compiled anew.
        write_json(plan_file, {"machine": measure_machine(threads=config.threads, compile=False).to_json()})
    ranks.wait()
    machine = Machine.from_json(read_json(plan_file)["machine"])
    model = SequenceClassifier.from_language_model(opened.model, len(labels), seed=config.seed)
    spread = spread_out(model, machine, config.parallel, ranks)
    batches = LabelledBatches(
        texts,
        [labels.index(label) for label in learned.labels],
        batch_size=config.batch_size,
        pad_id=tokenizer.pad_id,
        longest=longest,
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.size,
        device=machine.device,
    )
    epochs = config.epochs or usual_epochs(len(texts))
    total_steps = max(1, round(epochs * batches.per_epoch))
    optimizer = OptimizerConfig(
        config.matrix_lr, config.embedding_lr, config.head_lr, config.vector_lr, weight_decay=config.weight_decay
    )
    train(
        work,
        "tuning",
        spread,
        Classification(config.label_smoothing),
        batches.batch,
        spread.optimizer(optimizer),
        WarmupStableDecay(total_steps, warmup_steps=max(1, total_steps // 20), decay_steps=total_steps),
        plan_digest=work.fingerprint,
        total_tokens=batches.texts_in(total_steps),
        unit="texts",
        machine=machine,
        ranks=ranks,
        console=console,
        checkpoint_seconds=config.checkpoint_seconds,
        skip_spikes=config.skip_spikes,
        log_to=config.log_to,
    )

    model = spread.gathered()
    if not ranks.first:
        return
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    files = save_classifier(config.out, model, labels, **ids)
    tokenizer.config[MODEL_MAX_LENGTH] = longest
    tokenizer.save(config.out)
    saved = open_classifier(config.out, device=machine.device)  # tested is what a user gets: from disk, in fp32
    with console.progress("testing", len(tests), "texts") as bar:
        probabilities = predict(saved.model, tests, pad_id=tokenizer.pad_id, advance=bar.advance)
    true = [labels.index(label) for label in tested.labels]
    predicted = probabilities.argmax(1)
    result = score(true, predicted, len(labels), seed=config.seed)
    beside = compare(learned, tested, labels, result, tfidf=config.baseline, seed=config.seed)
    console.table("On the test texts (95 % intervals)", ("who", "accuracy", "macro-F1"), beside.rows())
    console.note(beside.verdict())
    facts = {
        "columns": learned.columns,
        "labels": labels,
        "counts": {"train": learned.counts(), "test": tested.counts()},
        "dropped": dict(learned.dropped) | {f"test: {reason}": count for reason, count in tested.dropped.items()},
        "cut": {"train": cut, "test": cut_tests, "max_tokens": longest},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "epochs": total_steps / batches.per_epoch,
        "test": {"examples": len(tests), **result.to_json(), "confusion": result.confusion.tolist()},
        **beside.to_json(),
        "samples": _samples(tested, labels, probabilities),
    }
    outputs = [*files, config.out / "tokenizer.json", config.out / "tokenizer_config.json", plan_file]
    work.finish(facts, outputs)


def _examples(config: FinetuneClassifyConfig, console: Console) -> tuple[Labelled, Labelled]:
    """What is learned and what is tested on, as the user is told."""
    from groundup.examples import read_table
    from groundup.examples.labelled import (
        LabelRules,
        apart,
        read_labelled,
        split,
        summary,
        without_repeats,
        without_single_labels,
    )

    rules = LabelRules(config.text, config.label, config.bins, config.bin_names, config.merge, config.text_after)
    table = read_table(config.data, console=console)
    rules = rules.found_in(table)
    given = read_labelled(table, rules)
    if config.test is None:
        learned, tested = split(without_single_labels(without_repeats(given)), config.test_fraction, config.seed)
    else:
        theirs = read_table(config.test, console=console)
        learned, tested = apart(without_repeats(given), read_labelled(theirs, rules.found_in(theirs)))
        console.note(f"For the test, {summary(theirs, tested)}")
    console.note(summary(table, learned))
    console.note(f"{len(learned):,} texts to learn from, {len(tested):,} to test on.")
    return learned, tested


def _samples(tested: Labelled, labels: list[str], probabilities: Floats) -> list[dict[str, Any]]:
    """Some test texts with their predictions: the first in the order of their hash, so that none is picked by hand."""
    from groundup.types import text_id

    chosen = sorted(range(len(tested)), key=lambda i: text_id(tested.texts[i]))[:_SAMPLES]
    return [
        {
            "text": tested.texts[i][:_SAMPLE_CHARACTERS],
            "label": tested.labels[i],
            "predicted": labels[int(probabilities[i].argmax())],
            "probability": float(probabilities[i].max()),
        }
        for i in chosen
    ]
