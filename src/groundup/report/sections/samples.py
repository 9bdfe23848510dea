"""What it writes, what it answers beside its base, and what it makes of new examples."""

from __future__ import annotations

from groundup.core.facts import Facts
from groundup.report.html import Child, Html, foreign, tag
from groundup.report.record import CLASSIFY, INSTRUCT, RunRecord
from groundup.report.words import percent, shortened

_CHARACTERS = 1200
_MOST = 12
_ROLES = {"system": "system", "user": "asked", "assistant": "the tuned model"}


def samples(run: RunRecord) -> list[Child]:
    """The parts of the section; none where nothing was written or classified."""
    parts: list[Child] = []
    written = run.evaluation().rows("samples")[:_MOST]
    if written:
        note = "The beginning in italics was given to it; the rest is its own, drawn at random with the seed named."
        parts += [tag("h3", "What it writes"), tag("p", note, class_="note"), [_sample(sample) for sample in written]]
    tuned = run.stage(INSTRUCT)
    transcripts = tuned.facts.rows("transcripts")[:_MOST] if tuned else []
    if transcripts:
        note = "Prompts that it was not trained on. Beside its answer, what the base writes after the same prompt."
        parts += [
            tag("h3", "What it answers"),
            tag("p", note, class_="note"),
            [_transcript(item) for item in transcripts],
        ]
    classifier = run.stage(CLASSIFY)
    classified = classifier.facts.rows("samples")[:_MOST] if classifier else []
    if classified:
        parts += [
            tag("h3", "What it classifies"),
            tag("ul", [_classified(item) for item in classified], class_="classified"),
        ]
    return parts


def _sample(sample: Facts) -> Html:
    ended = {"stop": "it ended here by itself", "length": "cut off here"}.get(sample.words("finish_reason"), "")
    told = ", ".join(part for part in (f"seed {sample.words('seed')}", ended) if part)
    prompt = sample.words("prompt")
    text = shortened(sample.words("text"), _CHARACTERS)
    return tag(
        "figure",
        tag("blockquote", tag("i", prompt) if prompt else None, text, dir="auto"),
        tag("figcaption", tag("span", ("" if prompt else "From nothing; ") + told)),
        class_="sample",
    )


def _transcript(item: Facts) -> Html:
    turns = item.rows("messages")
    last = turns[-1] if turns and turns[-1].words("role") == "assistant" else None
    asked = [_turn(_ROLES.get(turn.words("role"), turn.words("role")), turn.words("content")) for turn in turns]
    if last is not None:
        asked.pop()
    answers = [
        _turn("its base", item.words("base"), "turn before"),
        _turn("the tuned model", last.words("content") if last else "", "turn after"),
    ]
    reference = item.words("reference")
    expected = _turn("the answer in the data", reference, "turn reference") if reference else None
    return tag("div", asked, tag("div", answers, class_="pair"), expected, class_="transcript")


def _turn(who: str, content: str, kind: str = "turn") -> Html:
    shown = (
        foreign(shortened(content.strip(), _CHARACTERS)) if content.strip() else tag("p", "(nothing)", class_="note")
    )
    return tag("div", tag("p", who, class_="who"), shown, class_=kind)


def _classified(item: Facts) -> Html:
    label, predicted = item.words("label"), item.words("predicted")
    sure = item.number("probability")
    told = [tag("strong", predicted), f" {percent(sure, 0)}" if sure is not None else None]
    mark = tag("span", "✓ right" if label == predicted else f"✗ wrong: it is {label}", class_="mark")
    return tag(
        "li",
        foreign(shortened(item.words("text"), 400)),
        tag("p", told, " ", mark, class_="note" if label == predicted else "note wrong"),
    )
