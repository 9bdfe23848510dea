"""What happens to a classifier before its first step: the framing of its texts is chosen and the head is fitted."""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.checksums import write_checked_json
from groundup.core.console import Console
from groundup.core.files import atomic_file, file_digest
from groundup.train.run import read_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from groundup.core.artifact import Work
    from groundup.distributed.ranks import Ranks
    from groundup.model import SequenceClassifier
    from groundup.tokenizer import Tokenizer
    from groundup.train.objectives.probe import LabelLoss

HEAD_FILE = "head.safetensors"  # the fitted head, next to the plan until the run has finished
_WEIGHT = "score.weight"
_HEAD_DIGEST = "head_digest"  # in the plan
_LEAST_TOKENS = 30_000  # that the head is fitted on


def start_head(
    model: SequenceClassifier,
    ways: Sequence[Tokenizer],
    texts: Sequence[str],
    targets: Any,
    room: int,
    plan_file: Path,
    loss: LabelLoss,
    *,
    seed: int,
    ranks: Ranks,
    console: Console,
) -> tuple[Tokenizer, int]:
    """Choose how texts are read and fit the head on some of them: a twelfth of an epoch's work.

    A resumed run takes both from its plan.

    Args:
        room: maximum number of tokens per text, read in the first of the ways.
        plan_file: of this run; the fitted head is saved next to it.
        loss: of the training that follows.

    Returns:
        The chosen way, and the maximum number of tokens per text in it.
    """
    # As the first rank finds it: it writes its choice while others may not have come here yet.
    plan: dict[str, Any] = ranks.told(read_plan(plan_file) if ranks.first else None)
    fitted = plan_file.with_name(HEAD_FILE)
    if ranks.told(fitted.is_file() and plan.get(_HEAD_DIGEST) == file_digest(fitted)):  # else damaged: fitted again
        _load(model, fitted)
        ranks.wait()
    else:
        plan |= _fit(model, ways, texts, targets, room, loss, seed, ranks, console)
        if ranks.first:
            _save(model, fitted)
            plan[_HEAD_DIGEST] = file_digest(fitted)
            write_checked_json(plan_file, plan)
        ranks.wait()
    tokenizer = ways[plan["framed"]]
    return tokenizer, room + tokenizer.added - ways[0].added


def _fit(
    model: SequenceClassifier,
    ways: Sequence[Tokenizer],
    texts: Sequence[str],
    targets: Any,
    room: int,
    loss: LabelLoss,
    seed: int,
    ranks: Ranks,
    console: Console,
) -> dict[str, Any]:
    from groundup.train.objectives.classification import encode
    from groundup.train.objectives.framing import BEFORE, BEHIND, best_way_to_read
    from groundup.train.objectives.probe import fit_head

    order = random.Random(seed).sample(range(len(texts)), len(texts))
    drawn, wanted = [texts[place] for place in order], [targets[place] for place in order]
    started = time.monotonic()
    with console.progress("fitting the head", None, "texts") as bar:
        fit = partial(fit_head, loss=loss, advance=bar.advance)
        best, fits = best_way_to_read(model, ways, drawn, wanted, room, fit)
        framed, nats = bool(ranks.told(best)), [each.nats for each in fits]
        tokenizer = ways[framed]
        read, _ = encode(tokenizer, drawn, room + tokenizer.added - ways[0].added)
        most_tokens = max(_LEAST_TOKENS, sum(map(len, read)) // 4)
        if fits and fits[framed].texts == len(texts):  # all of them were tried
            start = fits[framed]
        else:
            start = fit(model, read, wanted, pad_id=tokenizer.pad_id, most_tokens=most_tokens)
    if len(nats) > 1:
        named = ("alone", f"in {BEFORE}...{BEHIND}")
        least, most = sorted(nats)
        compared = f"(loss of a head on the frozen model: {least:.3f} nats per text; {named[not framed]}: {most:.3f})"
        console.note(f"Each text is read {named[framed]} {compared}.")
    console.note(
        f"Initial head: {start.nats:.3f} nats per text in leave-one-out prediction, fitted on the frozen model."
    )
    # The tokens of every fit are about those of the last one, in proportion to its texts.
    fitted = sum(each.texts for each in fits) + (start.texts if start not in fits else 0)
    seconds = (time.monotonic() - started) / fitted * len(read) / sum(map(len, read))
    return {"framed": framed, "nats": nats, "head": asdict(start), "seconds_per_token": seconds}


def log_head(work: Work, plan: dict[str, Any]) -> None:
    """Write the fit as the one step of a run that trains nothing else: its loss is that of leave-one-out prediction."""
    head = plan["head"]
    row = {"step": 1, "total_steps": 1, "tokens_seen": head["texts"], "loss": head["nats"], "lr_factor": 0.0}
    row |= {"accuracy": head["accuracy"], "grad_norm": head["grad_norm"], "seconds": work.seconds, "waited": 0.0}
    (work.directory / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")


def _save(model: SequenceClassifier, path: Path) -> None:
    from safetensors.torch import save

    with atomic_file(path) as temporary:
        temporary.write_bytes(save({_WEIGHT: model.score.weight.detach().cpu().contiguous()}))


def _load(model: SequenceClassifier, path: Path) -> None:
    import torch
    from safetensors.torch import load

    with torch.no_grad():
        model.score.weight.copy_(load(path.read_bytes())[_WEIGHT])
