"""Fit the scaling law on a ladder of short runs on the user's own text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from groundup.core.console import Console
from groundup.data import TokenShards
from groundup.model import ModelConfig
from groundup.model.flops import layer_parameters
from groundup.train.measurement.training_text import sample_text
from groundup.train.planner.forecast import compression
from groundup.train.planner.law import LadderRun, Law, drop_outdated_law, fit_law

_RUNGS = ((2, 1), (2, 3), (3, 1), (3, 3), (4, 2), (5, 4))  # number of layers, and share of the time


def rungs(minutes: float) -> Iterator[tuple[int, float]]:
    """Yield the number of layers and the minutes of each run of a ladder that takes `minutes` in total."""
    total = sum(share for _, share in _RUNGS)
    for layers, share in _RUNGS:
        yield layers, minutes * share / total


def fit_ladder(
    shards: TokenShards, train: Callable[[int, float], Mapping[str, Any]], minutes: float, console: Console
) -> Law:
    """Train the runs of a ladder, fit the law, and save it next to the token shards.

    Args:
        shards: Training split.
        train: Trains a model with a number of layers for some minutes, and returns the facts of the run.
        minutes: Total training time in minutes.
        console: Console for notes.
    """
    from groundup.tokenizer import Tokenizer

    console.note(f"Training {len(_RUNGS)} models for {minutes:g} minutes in total.")
    drop_outdated_law(shards.directory)
    size = compression(sample_text(shards, Tokenizer.load(shards.directory / "tokenizer").decode))
    runs = []
    for layers, time in rungs(minutes):
        facts = train(layers, time)
        run = LadderRun(
            layer_parameters(ModelConfig.from_json(facts["plan"]["model"])),
            shards.n_bytes,
            facts["tokens_seen"] / (shards.n_tokens + shards.n_documents),
            facts["prediction"]["measured"]["bits_per_byte"],
            facts["plan"]["optimizer"]["weight_decay"],
            size,
        )
        console.note(f"{layers} layers, {run.epochs:.2f} epochs: {run.bits_per_byte:.3f} bits per byte")
        runs.append(run)
    law = fit_law(runs, source=f"{len(runs)} runs on {shards.directory.name}, {minutes:g} minutes")
    law.save(shards.directory)
    console.note(f"The scaling law is fitted; its predictions of single runs have an error of {law.residual:.1%}.")
    return law
