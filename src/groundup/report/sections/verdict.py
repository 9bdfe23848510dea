"""What was built, from what, how good it is, how long it took: three sentences and a row of figures."""

from __future__ import annotations

from groundup.core.console import format_count, format_duration
from groundup.core.facts import Facts
from groundup.report.page import Figure
from groundup.report.record import CLASSIFY, COLLECT, INSTRUCT, PRETRAIN, TOKENIZE, RunRecord
from groundup.report.words import duration, large, listed, number, percent, size


def sentences(run: RunRecord) -> list[str]:
    """The verdict, at most three sentences."""
    return [text for text in (_what(run), _how_good(run), _how_long(run)) if text]


def headline_figures(run: RunRecord) -> list[Figure]:
    """The figures that people ask for first."""
    base, tokens = run.stage(PRETRAIN), run.stage(TOKENIZE)
    bpb = run.evaluation().number("bpb")
    sort = run.stage(CLASSIFY)
    accuracy = sort.facts.number("test", "accuracy", "value") if sort else None
    found = [
        Figure("Prediction", number(bpb), "bits per byte") if bpb is not None else None,
        Figure("Classification", percent(accuracy), "right") if accuracy is not None else None,
        Figure("Model", format_count(base.facts.count("parameters")), "parameters") if base else None,
        Figure("Text", size(text_bytes(run))) if text_bytes(run) else None,
        Figure("Vocabulary", f"{tokens.facts.count('vocab_size'):,}", "tokens") if tokens else None,
        Figure("Training", format_count(base.facts.count("tokens_seen")), "tokens seen") if base else None,
        Figure("Time", format_duration(sum(output.artifact.seconds for output in run.outputs))),
    ]
    return [figure for figure in found if figure]


def comparison(low: float | None, high: float | None) -> str:
    """What an interval of a difference in loss says."""
    if low is None or high is None:
        return "of unknown certainty"
    if high < 0:
        return "better"
    return "worse" if low > 0 else "not distinguishable"


def text_bytes(run: RunRecord) -> int:
    """All text of the corpus, held-out text included."""
    corpus = run.stage(COLLECT)
    return sum(corpus.facts.count(split, "bytes") for split in ("train", "validation")) if corpus else 0


def _what(run: RunRecord) -> str:
    base, tokens = run.stage(PRETRAIN), run.stage(TOKENIZE)
    genres = list(dict.fromkeys(genre for source in run.card().rows("sources") if (genre := source.words("genre"))))
    text = f"{size(text_bytes(run))} of text" if text_bytes(run) else ""
    kinds = f" ({listed(genres)})" if genres and text else ""
    if base:
        parameters = base.facts.number("parameters")
        of = f" with {large(parameters)} parameters" if parameters else ""
        source = f"trained on {text}{kinds}" if text else "trained on its own tokens"
        return f"This is a language model{of}, built from the ground up: it began as random numbers and was {source}."
    if text:
        cut = f", cut into {large(tokens.facts.count('train', 'tokens'))} tokens" if tokens else ""
        return f"Here is {text}{kinds}{cut}, ready for a language model to be trained on."
    return "This run has no language model that was trained from scratch."


def _how_good(run: RunRecord) -> str:
    parts = [part for part in (_predicts(run.evaluation()), _answers(run), _sorts(run)) if part]
    if not parts:
        return "How good it is has not been measured yet." if run.stage(PRETRAIN) else ""
    whole = "; ".join(parts)
    return f"{whole[0].upper()}{whole[1:]}."


def _predicts(found: Facts) -> str:
    bpb = found.number("bpb")
    if bpb is None:
        return ""
    said = f"it predicts text that it has never seen at {number(bpb, 2)} bits per byte"
    rivals = [score for score in found.rows("compressors") if score.at("saw_training") is True]
    rivals = [score for score in rivals if score.number("bpb") is not None]
    if not rivals:
        return said
    best = min(rivals, key=lambda score: score.number("bpb") or 0.0)
    relation = {
        "the model": "better than the best compressor that had read the same text",
        "the compressor": "not as good as the best compressor that had read the same text",
    }.get(best.words("better"), "too close to call beside the best compressor that had read the same text")
    return f"{said}, {relation} ({best.words('name')}: {number(best.number('bpb'), 2)})"


def _answers(run: RunRecord) -> str:
    tuned = run.stage(INSTRUCT)
    if not tuned:
        return ""
    held_out = tuned.facts.part("held_out")
    relation = comparison(held_out.number("difference", "interval", 0), held_out.number("difference", "interval", 1))
    said = {
        "better": "tuned to answer, it finds held-out answers more likely than its base does",
        "worse": "tuned to answer, it finds held-out answers less likely than its base does",
        "not distinguishable": "tuned to answer, it cannot be told from its base on held-out answers",
    }
    return said.get(relation, "it was tuned to answer")


def _sorts(run: RunRecord) -> str:
    tuned = run.stage(CLASSIFY)
    accuracy = tuned.facts.number("test", "accuracy", "value") if tuned else None
    if tuned is None or accuracy is None:
        return ""
    count = len(tuned.facts.rows("labels"))
    said = f"as a classifier of {count} labels it is right on {percent(accuracy)} of new examples"
    majority = tuned.facts.number("majority", "accuracy")
    return (
        said if majority is None else f"{said}, where always giving the commonest label is right on {percent(majority)}"
    )


def _how_long(run: RunRecord) -> str:
    seconds = sum(output.artifact.seconds for output in run.outputs)
    machine = Facts(run.outputs[-1].artifact.machine)
    cores = machine.count("cpus")
    where = f" on a machine with {cores} CPU core{'s' if cores != 1 else ''}" if cores else ""
    base = run.stage(PRETRAIN)
    device = base.facts.words("machine", "device") if base else ""
    if device and device != "cpu":
        where += f" and a {device.split(':')[0].upper()} device"
    return f"All of it took {duration(seconds)}{where}."
