"""What happens to a classifier before its first step: how texts are read is chosen, and the head is fitted."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.checksums import write_checked_json
from groundup.console import Console
from groundup.stages._plans import read_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from groundup.model import SequenceClassifier
    from groundup.ranks import Ranks
    from groundup.tokenizer import Tokenizer

_LEAST_TOKENS = 30_000  # that the head is fitted on


def start_head(
    model: SequenceClassifier,
    ways: Sequence[Tokenizer],
    texts: Sequence[str],
    targets: Any,
    room: int,
    plan_file: Path,
    *,
    seed: int,
    balance: bool,
    ranks: Ranks,
    console: Console,
) -> tuple[Tokenizer, int]:
    """Choose one of the ways to read texts, and fit the head on some of them: a twelfth of an epoch's work.

    Args:
        room: tokens of the longest text, read in the first of the ways.
        plan_file: of this run; the choice is kept there, so that a run that goes on reads as it did before.

    Returns:
        The way, and the tokens of the longest text in it.
    """
    from groundup.objectives.classification import encode
    from groundup.objectives.framing import BEFORE, BEHIND, best_way_to_read
    from groundup.objectives.probe import fit_head

    order = random.Random(seed).sample(range(len(texts)), len(texts))
    drawn, wanted = [texts[place] for place in order], [targets[place] for place in order]
    # As the first rank finds it: it writes its choice while others may not have come here yet.
    plan = ranks.told(read_plan(plan_file) if ranks.first else None)
    with console.progress("fitting the head", None, "texts") as bar:
        fit = partial(fit_head, balance=balance, advance=bar.advance)
        if "framed" not in plan:
            best, nats = best_way_to_read(model, ways, drawn, wanted, room, fit)
            plan |= {"framed": bool(ranks.told(best)), "nats": nats}
            if ranks.first:
                write_checked_json(plan_file, plan)
        tokenizer = ways[plan["framed"]]
        longest = room + tokenizer.added - ways[0].added
        read, _ = encode(tokenizer, drawn, longest)
        most_tokens = max(_LEAST_TOKENS, sum(map(len, read)) // 4)
        fitted = fit(model, read, wanted, pad_id=tokenizer.pad_id, most_tokens=most_tokens)
    if len(plan["nats"]) > 1:
        ways_named = ("alone", f"in {BEFORE}...{BEHIND}")
        chosen, other = ways_named[plan["framed"]], ways_named[not plan["framed"]]
        least, most = sorted(plan["nats"])
        told = f"({least:.3f} nats a text by a head on the untouched model; {most:.3f} {other})"
        console.note(f"Each text is read {chosen} {told}.")
    console.note(f"The head begins at {fitted:.3f} nats a text, fitted on what the model makes of the texts now.")
    return tokenizer, longest
