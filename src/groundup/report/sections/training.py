"""How it learned: the plan, the loss as it fell, and the same for what was tuned afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable

from groundup.console import format_count
from groundup.report.charts import Axis, Line, figure, lines
from groundup.report.charts.lines import Point
from groundup.report.curves import Curve, smooth, thin
from groundup.report.facts import Facts
from groundup.report.html import Child, Html, table, tag
from groundup.report.record import CLASSIFY, INSTRUCT, PRETRAIN, TOKENIZE, Output, RunRecord
from groundup.report.words import count, duration, large, number, percent

_TABLE_ROWS = 16


def training(run: RunRecord) -> list[Child]:
    """The parts of the section; none where nothing was trained."""
    parts: list[Child] = []
    base = run.stage(PRETRAIN)
    if base:
        parts.append(_told(base))
        if base.curve:
            tokens = run.stage(TOKENIZE)
            bytes_per_token = tokens.facts.number("bytes_per_token") if tokens else None
            parts += [_loss("pretrain", "Loss while it trained", base.curve, bytes_per_token), *_small(base.curve)]
        parts.append(_plan(base))
    for stage, name in ((INSTRUCT, "Tuning it to answer"), (CLASSIFY, "Tuning it to classify")):
        tuned = run.stage(stage)
        if tuned:
            parts += [tag("h3", name), tag("p", _examples(tuned.facts))]
            if tuned.curve:
                parts.append(_loss(stage.split(".")[-1], "Loss while it was tuned", tuned.curve, None, height=220))
    return parts


def _told(base: Output) -> Html:
    seen = base.facts.count("tokens_seen")
    epochs = base.facts.number("plan", "epochs")
    often = "" if epochs is None else f", {number(epochs, 2)} times through the text"
    return tag(
        "p",
        f"The model read {large(seen)} tokens{often}. At each step it guessed every next token of a batch of text; "
        "the loss says how far off its guesses were, and its weights were moved a little to lower it.",
    )


def _loss(name: str, title: str, curve: Curve, bytes_per_token: float | None, *, height: int = 300) -> Html | None:
    raw = curve.points("loss")
    if not raw:
        return None
    soft = smooth(raw)
    to_bpb = _bits_per_byte(bytes_per_token)
    x, last = soft[-1]
    ended = f"{number(last, 2)} nats a token"
    if to_bpb:
        ended += f", about {number(to_bpb(last), 2)} bits per byte"
    note = f"Smoothed, it ends at {ended}. The thin line is each step, the thick one a running mean."
    description = (
        f"Training loss from {number(soft[0][1], 2)} at the beginning to {number(last, 2)} nats a token "
        f"after {format_count(x, 'tokens')}."
    )

    def told(point: Point) -> str:
        bits = f", {number(to_bpb(point[1]), 2)} bits per byte" if to_bpb else ""
        return f"{format_count(point[0])} tokens: {number(point[1], 3)} nats a token{bits}"

    axis = Axis(_tick, (lambda value: number(to_bpb(value), 1)) if to_bpb else None)
    drawn = lines(
        f"loss-{name}",
        title,
        description,
        [Line(thin(raw), accent=False), Line(thin(soft))],
        axis,
        x_label=lambda value: format_count(value),
        hover=told,
        height=height,
    )
    units = "Right: nats a token; left: bits per byte of the training text. " if to_bpb else "In nats a token. "
    under = tag("p", units + "Below: tokens seen.", class_="axis-note")
    return figure(title, tag("div", drawn, under), note=note, figures=_loss_table(curve, to_bpb))


def _bits_per_byte(bytes_per_token: float | None) -> Callable[[float], float] | None:
    if not bytes_per_token:
        return None
    return lambda nats: nats / (math.log(2) * bytes_per_token)


def _loss_table(curve: Curve, to_bpb: Callable[[float], float] | None) -> Html:
    stride = max(1, math.ceil(len(curve.steps) / _TABLE_ROWS))
    chosen = list(curve.steps[stride - 1 :: stride])
    if chosen[-1:] != [curve.steps[-1]]:
        chosen.append(curve.steps[-1])
    rows = []
    for step in chosen:
        loss = step.number("loss")
        bits = number(to_bpb(loss), 3) if to_bpb and loss is not None else None
        figures = [f"{step.count('step'):,}", f"{step.count('tokens_seen'):,}", number(loss), bits]
        rows.append([*figures, number(step.number("grad_norm")), number(step.number("lr_factor"))])
    columns = ("step", "tokens seen", "loss, nats a token", "bits per byte", "gradient norm", "learning rate, share")
    return table("Some of the steps", columns, rows)


def _small(curve: Curve) -> list[Child]:
    """The learning rate and the gradient norm, as small strips for those who look for trouble."""
    strips: list[Child] = []
    for key, title, note in (
        ("lr_factor", "Learning rate", "Share of the highest rate."),
        ("grad_norm", "Gradient norm", "Spikes would be a sign of trouble."),
    ):
        points = thin(curve.points(key))
        if points:
            drawn = lines(
                key,
                title,
                f"{title} over the tokens seen; it ends at {number(points[-1][1])}.",
                [Line(points)],
                Axis(_tick, from_zero=True),
                x_label=lambda value: format_count(value),
                height=150,
            )
            strips.append(figure(title, drawn, note=note))
    return [tag("div", strips, class_="pair")] if strips else []


def _tick(value: float) -> str:
    return f"{value:g}"


def _plan(base: Output) -> Html:
    """The shape, and how fast it went."""
    facts, plan, shape = base.facts, base.facts.part("plan"), base.facts.part("plan", "model")
    rate = base.curve.tokens / base.curve.seconds if base.curve and base.curve.seconds else None
    flops = facts.number("flops_per_token")
    product = facts.number("machine", "product_flops")
    batch = plan.count("micro_batch_size") * plan.count("grad_accum_steps") * shape.count("context_length")
    heads = f"{shape.count('n_heads')} of {shape.count('head_dim')} features, {shape.count('n_kv_heads')} of keys and values"
    layers = (
        f"{count(shape.count('n_layers'), 'layer')}, {shape.count('dim')} wide, feed-forward {shape.count('ffn_dim')}"
    )
    rows: list[tuple[str, str | None]] = [
        ("family", shape.words("family")),
        ("parameters", f"{facts.count('parameters'):,}"),
        ("shape", layers),
        ("attention heads", heads),
        ("context", count(shape.count("context_length"), "token")),
        ("tokens seen", f"{facts.count('tokens_seen'):,}"),
        ("steps", f"{plan.count('total_steps'):,} of {batch:,} tokens" if batch else None),
        ("training FLOPs", f"{flops * facts.count('tokens_seen'):.2e}" if flops else None),
        ("speed", f"{rate:,.0f} tokens/s" if rate else None),
        ("MFU", _mfu(rate, flops, product)),
        ("time", duration(base.artifact.seconds)),
        ("precision", facts.words("machine", "compute_dtype")),
        ("compiled", {True: "yes", False: "no"}.get(facts.at("machine", "compile"))),
        ("learning rates", _rates(plan.part("optimizer"))),
    ]
    cells = [(name, value) for name, value in rows if value]
    return table("The plan, and how it went", ("", ""), cells, class_="facts")


def _mfu(rate: float | None, flops: float | None, product: float | None) -> str | None:
    """Model FLOPs utilization (Chowdhery et al. 2022, arXiv:2204.02311), against this machine's own matrix product."""
    if not (rate and flops and product):
        return None
    return (
        f"{percent(rate * flops / product, 0)} of {format_count(product, 'FLOP/s')}, a matrix product's on this machine"
    )


def _rates(optimizer: Facts) -> str | None:
    known = [(name, optimizer.number(f"{name}_lr")) for name in ("matrix", "embedding", "head", "vector")]
    return ", ".join(f"{name} {value:g}" for name, value in known if value) or None


def _examples(facts: Facts) -> str:
    """What it was tuned on, in one paragraph."""
    said = [_full_stop(facts.words("columns"))] if facts.words("columns") else []
    counts = facts.part("examples") or Facts(
        {split: sum(n.count() for _, n in facts.items("counts", split)) for split in ("train", "test")}
    )
    if counts.count("train"):
        tuned = f"{count(counts.count('train'), 'example')} to train on, {counts.count('test'):,} held out"
        epochs = facts.number("epochs")
        said.append(f"{tuned}; {number(epochs, 1)} times through." if epochs is not None else f"{tuned}.")
    drops = [
        f"{found.count():,} {reason}"
        for reason, found in [*facts.items("examples", "dropped"), *facts.items("dropped")]
    ]
    if drops:
        said.append(f"Dropped: {'; '.join(drops[:8])}.")
    return " ".join(said) or "Tuned on examples."


def _full_stop(sentence: str) -> str:
    return sentence if sentence.rstrip().endswith((".", "!", "?")) else f"{sentence.rstrip()}."
