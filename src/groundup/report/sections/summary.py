"""The summary at the top of a run report, which has at most three sentences and a row of numbers."""

from __future__ import annotations

from groundup.core.console import format_count, format_duration
from groundup.core.facts import Facts
from groundup.report.formatting import approximate, duration, join_names, number, percent, size
from groundup.report.page import Metric
from groundup.report.record import CLASSIFY, COLLECT, INSTRUCT, PRETRAIN, TOKENIZE, RunRecord


def summary_sentences(run: RunRecord) -> list[str]:
    """Return at most three sentences, about the model, its evaluation, and the time of the run."""
    return [text for text in (_model(run), _results(run), _time(run)) if text]


def headline_metrics(run: RunRecord) -> list[Metric]:
    """Return the numbers in the summary at the top of the report."""
    base, tokens = run.stage(PRETRAIN), run.stage(TOKENIZE)
    bpb = run.evaluation().number("bpb")
    classifier = run.stage(CLASSIFY)
    accuracy = classifier.facts.number("test", "accuracy", "value") if classifier else None
    metrics = [
        Metric("Evaluation", number(bpb), "bits per byte") if bpb is not None else None,
        Metric("Classification", percent(accuracy), "accuracy") if accuracy is not None else None,
        Metric("Model", format_count(base.facts.count("parameters")), "parameters") if base else None,
        Metric("Text", size(text_bytes(run))) if text_bytes(run) else None,
        Metric("Vocabulary", f"{tokens.facts.count('vocab_size'):,}", "tokens") if tokens else None,
        Metric("Training", format_count(base.facts.count("tokens_seen")), "tokens seen") if base else None,
        Metric("Time", format_duration(sum(output.artifact.seconds for output in run.outputs))),
    ]
    return [metric for metric in metrics if metric]


def comparison(low: float | None, high: float | None) -> str:
    """Return how the fine-tuned model compares with the base model.

    Args:
        low: Lower bound of the interval of the difference in loss, fine-tuned model minus base model.
        high: Upper bound of this interval.

    Returns:
        "better", "worse", "not distinguishable" or, if a bound is unknown, "without an interval".
    """
    if low is None or high is None:
        return "without an interval"
    if high < 0:
        return "better"
    return "worse" if low > 0 else "not distinguishable"


def text_bytes(run: RunRecord) -> int:
    """Return the size of the corpus in bytes of text, including the validation set."""
    corpus = run.stage(COLLECT)
    return sum(corpus.facts.count(split, "bytes") for split in ("train", "validation")) if corpus else 0


def _model(run: RunRecord) -> str:
    base, tokens = run.stage(PRETRAIN), run.stage(TOKENIZE)
    genres = list(dict.fromkeys(genre for source in run.card().rows("sources") if (genre := source.words("genre"))))
    text = f"{size(text_bytes(run))} of text" if text_bytes(run) else ""
    kinds = f" ({join_names(genres)})" if genres and text else ""
    if base:
        parameters = base.facts.number("parameters")
        size_words = f" with {approximate(parameters)} parameters" if parameters else ""
        source = f"{text}{kinds}" if text else "tokens of another corpus"
        return f"This run pretrained a language model{size_words} from scratch on {source}."
    if text:
        tokenized = f" ({approximate(tokens.facts.count('train', 'tokens'))} tokens)" if tokens else ""
        return f"This run prepared {text}{kinds}{tokenized} for pretraining."
    return "This run did not pretrain a language model."


def _results(run: RunRecord) -> str:
    parts = [part for part in (_bits_per_byte(run.evaluation()), _instruct(run), _classify(run)) if part]
    if not parts:
        return "The model has not been evaluated." if run.stage(PRETRAIN) else ""
    return " ".join(parts)


def _bits_per_byte(evaluation: Facts) -> str:
    bpb = evaluation.number("bpb")
    if bpb is None:
        return ""
    result = f"The model reaches {number(bpb, 2)} bits per byte on held-out text"
    compressors = [score for score in evaluation.rows("compressors") if score.at("saw_training") is True]
    compressors = [score for score in compressors if score.number("bpb") is not None]
    if not compressors:
        return f"{result}."
    best = min(compressors, key=lambda score: score.number("bpb") or 0.0)
    relation = {
        "the model": "better than",
        "the compressor": "worse than",
    }.get(best.words("better"), "not distinguishable from")
    name = f"{best.words('name')}: {number(best.number('bpb'), 2)}"
    return f"{result}, {relation} the best compression program with the same training text ({name})."


def _instruct(run: RunRecord) -> str:
    instruct = run.stage(INSTRUCT)
    if not instruct:
        return ""
    held_out = instruct.facts.part("held_out")
    relation = comparison(held_out.number("difference", "interval", 0), held_out.number("difference", "interval", 1))
    sentences = {
        "better": "The instruction-tuned model has a lower loss on held-out answers than the base model.",
        "worse": "The instruction-tuned model has a higher loss on held-out answers than the base model.",
        "not distinguishable": "Instruction tuning did not change the loss on held-out answers significantly.",
    }
    return sentences.get(relation, "The model was instruction-tuned.")


def _classify(run: RunRecord) -> str:
    classifier = run.stage(CLASSIFY)
    accuracy = classifier.facts.number("test", "accuracy", "value") if classifier else None
    if classifier is None or accuracy is None:
        return ""
    count = len(classifier.facts.rows("labels"))
    result = f"As a classifier of {count} labels, the model has an accuracy of {percent(accuracy)} on the test set"
    majority = classifier.facts.number("majority", "accuracy")
    return f"{result}." if majority is None else f"{result}; the majority class has {percent(majority)}."


def _time(run: RunRecord) -> str:
    seconds = sum(output.artifact.seconds for output in run.outputs)
    machine = Facts(run.outputs[-1].artifact.machine)
    cores = machine.count("cpus")
    machine_words = f" on a machine with {cores} CPU core{'s' if cores != 1 else ''}" if cores else ""
    base = run.stage(PRETRAIN)
    device = base.facts.words("machine", "device") if base else ""
    if device and device != "cpu":
        machine_words += f" and a {device.split(':')[0].upper()} device"
    return f"The run took {duration(seconds)}{machine_words}."
