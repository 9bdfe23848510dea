"""What `groundup finetune classify` learns from and is tested on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.core.console import Console
from groundup.core.errors import DataError

if TYPE_CHECKING:
    from groundup.commands.finetune_classify import FinetuneClassifyConfig
    from groundup.data.labelled import Labelled
    from groundup.tokenizer import Tokenizer


def labelled_examples(
    config: FinetuneClassifyConfig, tokenizer: Tokenizer, longest: int, console: Console
) -> tuple[Labelled, Labelled]:
    """What is learned and what is tested on, as the user is told."""
    from groundup.data import read_table
    from groundup.data.label_parts import apart, limited, split, without_long
    from groundup.data.labelled import (
        LabelRules,
        imbalance,
        read_labelled,
        spelled_apart,
        summary,
        without_repeats,
        without_single_labels,
    )
    from groundup.train.objectives.classification import fitting

    rules = LabelRules(
        config.text,
        config.label,
        config.bins,
        config.bin_names,
        merged=config.merge,
        after=config.text_after,
        separator=config.separator,
    )
    table = read_table(config.data, console=console)
    rules = rules.found_in(table)
    given = read_labelled(table, rules)
    if config.test is None:
        learned, tested = split(without_single_labels(without_repeats(given)), config.test_fraction, config.seed)
    else:
        theirs = read_table(config.test, console=console)
        others = read_labelled(theirs, rules.found_in(theirs))
        if others.several and not given.several:
            raise DataError(
                f"{theirs.name}: some texts have several labels",
                rule=f"in {table.name} each has one: of a text one label is learned, or several are",
                fix="Give test data with one label of each text.",
            )
        learned, tested = apart(without_repeats(given), others)
        console.note(f"For the test, {summary(theirs, tested)}")
    if not (config.cut_long or config.max_tokens):
        learned, tested = without_long(learned, tested, fitting(tokenizer, learned.texts, longest))
    console.note(summary(table, learned))
    if config.limit is not None:
        learned = limited(learned, config.limit, config.seed)
    if told := spelled_apart(learned):
        console.warn(told)
    if not config.balance and (told := imbalance(learned)):
        console.warn(told)
    console.note(f"{len(learned):,} texts to learn from, {len(tested):,} to test on.")
    return learned, tested
