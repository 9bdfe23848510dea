"""Fit the scaling law to short runs on the user's own text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from groundup.core.console import Console
from groundup.data import TokenShards
from groundup.model import ModelConfig
from groundup.model.flops import layer_parameters
from groundup.train.measurement.training_text import ppmd_of_shards
from groundup.train.planner.law import LadderRun, drop_outdated_law, fit_law, has_law

_RUNGS = ((2, 1), (2, 3), (3, 1), (3, 3), (4, 2), (5, 4))  # number of layers, and share of the time
# Models of 2 layers learn much less of code and templates than those of 3 and more, which are planned for most texts
# (`benchmarks/ablations.md`). Fewer tokens show too little of the text.
_CALIBRATION_LAYERS = 4
_CALIBRATION_TOKENS = (400_000, 1_600_000)
_CALIBRATION_EPOCHS = 8
_MIN_TOKENS = 20_000  # size of a text below which it is not calibrated

Train = Callable[[int, Mapping[str, float]], Mapping[str, Any]]


def fit_ladder(shards: TokenShards, train: Train, minutes: float | None, console: Console) -> None:
    """Train models of several sizes, fit the law to them, and save it with the token shards.

    Without `minutes`, two small models are trained, if there is no fitted law yet and the text is long enough.

    Args:
        shards: Training split.
        train: Trains a model with a number of layers and the given settings, and returns the facts of the run.
        minutes: Total training time in minutes, or None.
        console: Console for notes.
    """
    size = shards.n_tokens + shards.n_documents
    if minutes is not None:
        console.note(f"Training {len(_RUNGS)} models for {minutes:g} minutes in total.")
        total = sum(share for _, share in _RUNGS)
        runs = [(layers, {"minutes": minutes * share / total}) for layers, share in _RUNGS]
        _fit(shards, train, runs, f"{minutes:g} minutes", console)
    elif size >= _MIN_TOKENS and not has_law(shards.directory):
        console.note("Training two small models on this text, to predict others. --no-measure skips this.")
        shorter = min(1.0, _CALIBRATION_EPOCHS * size / max(_CALIBRATION_TOKENS))
        runs = [(_CALIBRATION_LAYERS, {"tokens": round(shorter * tokens)}) for tokens in _CALIBRATION_TOKENS]
        _fit(shards, train, runs, "calibration", console)


def _fit(
    shards: TokenShards, train: Train, runs: list[tuple[int, dict[str, float]]], name: str, console: Console
) -> None:
    from groundup.tokenizer import Tokenizer

    drop_outdated_law(shards.directory)
    ppmd = ppmd_of_shards(shards.directory, Tokenizer.load(shards.directory / "tokenizer").decode)
    done = []
    for layers, length in runs:
        facts = train(layers, length)
        run = LadderRun(
            layer_parameters(ModelConfig.from_json(facts["plan"]["model"])),
            shards.n_bytes,
            facts["tokens_seen"] / (shards.n_tokens + shards.n_documents),
            facts["prediction"]["measured"]["bits_per_byte"],
            facts["plan"]["optimizer"]["weight_decay"],
        )
        console.note(f"{layers} layers, {run.epochs:.2f} epochs: {run.bits_per_byte:.3f} bits per byte")
        done.append(run)
    law = fit_law(done, ppmd=ppmd, source=f"{len(done)} runs on {shards.directory.name}, {name}")
    law.save(shards.directory)
    console.note(
        f"The scaling law is fitted to this text. Predictions of single runs have an error of {law.residual:.1%}."
    )
