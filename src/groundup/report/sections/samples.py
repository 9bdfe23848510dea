"""The samples section: generated texts, answers of the fine-tuned and the base model, and classified texts."""

from __future__ import annotations

from groundup.core.facts import Facts
from groundup.report.formatting import percent, truncate
from groundup.report.html import Child, Html, tag, untrusted
from groundup.report.record import CLASSIFY, INSTRUCT, RunRecord

_MAX_CHARS = 1200
_MAX_SAMPLES = 12
_ROLES = {"system": "system", "user": "user", "assistant": "fine-tuned model"}


def samples_section(run: RunRecord) -> list[Child]:
    """Return the content of the samples section, which is empty if the run does not contain samples."""
    parts: list[Child] = []
    generated = run.evaluation().rows("samples")[:_MAX_SAMPLES]
    if generated:
        note = "The prompt is in italics. The continuation is sampled with the given seed."
        parts += [tag("h3", "Generated text"), tag("p", note, class_="note"), [_sample(sample) for sample in generated]]
    instruct = run.stage(INSTRUCT)
    transcripts = instruct.facts.rows("transcripts")[:_MAX_SAMPLES] if instruct else []
    if transcripts:
        note = "Prompts are from the held-out set. Both models get the same prompt."
        parts += [
            tag("h3", "Answers"),
            tag("p", note, class_="note"),
            [_transcript(item) for item in transcripts],
        ]
    classifier = run.stage(CLASSIFY)
    classified = classifier.facts.rows("samples")[:_MAX_SAMPLES] if classifier else []
    if classified:
        parts += [
            tag("h3", "Classified texts"),
            tag("ul", [_classified(item) for item in classified], class_="classified"),
        ]
    return parts


def _sample(sample: Facts) -> Html:
    ended = {"stop": "complete", "length": "max tokens reached"}.get(sample.words("finish_reason"), "")
    details = ", ".join(part for part in (f"seed {sample.words('seed')}", ended) if part)
    prompt = sample.words("prompt")
    text = truncate(sample.words("text"), _MAX_CHARS)
    return tag(
        "figure",
        tag("blockquote", tag("i", prompt) if prompt else None, text, dir="auto"),
        tag("figcaption", tag("span", ("" if prompt else "no prompt, ") + details)),
        class_="sample",
    )


def _transcript(item: Facts) -> Html:
    turns = item.rows("messages")
    last = turns[-1] if turns and turns[-1].words("role") == "assistant" else None
    prompt = [_turn(_ROLES.get(turn.words("role"), turn.words("role")), turn.words("content")) for turn in turns]
    if last is not None:
        prompt.pop()
    answers = [
        _turn("base model", item.words("base"), "turn before"),
        _turn("fine-tuned model", last.words("content") if last else "", "turn after"),
    ]
    reference = item.words("reference")
    expected = _turn("reference answer", reference, "turn reference") if reference else None
    return tag("div", prompt, tag("div", answers, class_="pair"), expected, class_="transcript")


def _turn(who: str, content: str, kind: str = "turn") -> Html:
    shown = untrusted(truncate(content.strip(), _MAX_CHARS)) if content.strip() else tag("p", "(empty)", class_="note")
    return tag("div", tag("p", who, class_="who"), shown, class_=kind)


def _classified(item: Facts) -> Html:
    label, predicted = item.words("label"), item.words("predicted")
    probability = item.number("probability")
    prediction = [tag("strong", predicted), f" {percent(probability, 0)}" if probability is not None else None]
    mark = tag("span", "✓ correct" if label == predicted else f"✗ wrong: {label}", class_="mark")
    return tag(
        "li",
        untrusted(truncate(item.words("text"), 400)),
        tag("p", prediction, " ", mark, class_="note" if label == predicted else "note wrong"),
    )
