"""Errors name the missing stage, and printed commands quote paths with spaces.

In an earlier release, the error of `pretrain CORPUS` did not mention that the corpus must be tokenized first.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands import STAGES, collect, pretrain, tokenize
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.recipe import Step, next_commands
from groundup.corpus import read_card
from groundup.hub.resolve import resolve_model

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory, real_documents: list[str]) -> Path:
    """Return a corpus and token shards in a directory whose name contains a space."""
    root = tmp_path_factory.mktemp("my runs")
    (root / "texts").mkdir()
    for number, text in enumerate(real_documents[:40]):
        (root / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    made = root / "first try"
    values = {"folder": str(root / "texts"), "out": str(made / "corpus"), "workers": 1, "min_bytes": 1000}
    collect.run(load(collect.CollectConfig, values), console=QUIET)
    values = {"corpus": str(made / "corpus"), "out": str(made / "tokens"), "vocab_size": 512}
    tokenize.run(load(tokenize.TokenizeConfig, values), console=QUIET)
    return made


def _pretrain(given: Path) -> None:
    values = {"token_shards": str(given), "out": str(given.parent / "out"), "minutes": 1.0}
    pretrain.run(load(pretrain.PretrainConfig, values), console=QUIET)


def _tokenize(given: Path) -> None:
    tokenize.run(load(tokenize.TokenizeConfig, {"corpus": str(given), "out": str(given.parent / "out")}), console=QUIET)


def commands(fix: str) -> list[list[str]]:
    return [shlex.split(each) for each in fix.removeprefix("Run first: ").split(" && ")]


def test_what_lacks_a_stage_names_the_command_of_it(a_run: Path) -> None:
    corpus, tokens, base = (str(a_run / name) for name in ("corpus", "tokens", "base"))
    tokenize_it = ["groundup", "tokenize", corpus, "--out", tokens]
    pretrain_it = ["groundup", "pretrain", tokens, "--out", base, "--minutes", "5"]
    with pytest.raises(DataError, match="needed: token shards") as caught:
        _pretrain(a_run / "corpus")
    assert commands(caught.value.fix) == [tokenize_it]
    with pytest.raises(DataError, match="needed: a model") as caught:
        resolve_model(a_run / "tokens")
    assert commands(caught.value.fix) == [pretrain_it]
    with pytest.raises(DataError, match="needed: a model") as caught:
        resolve_model(a_run / "corpus")
    assert commands(caught.value.fix) == [tokenize_it, pretrain_it]


def test_a_folder_of_text_is_collected_first(a_run: Path) -> None:
    texts = a_run.parent / "texts"
    with pytest.raises(DataError, match="needed: a corpus") as caught:
        _tokenize(texts)
    assert commands(caught.value.fix) == [["groundup", "collect", "--folder", str(texts), "--out", "runs/texts/corpus"]]


@pytest.mark.parametrize(("read", "wanted"), [(_pretrain, "tokens"), (_tokenize, "corpus"), (read_card, "corpus")])
def test_of_a_run_the_directory_that_was_meant_is_named(
    a_run: Path, read: Callable[[Path], object], wanted: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(a_run)
    assert caught.value.fix == f"Give {shlex.quote(str(a_run / wanted))}."


def test_a_later_stage_is_not_named_as_missing(a_run: Path) -> None:
    with pytest.raises(DataError) as caught:
        _tokenize(a_run / "tokens")
    assert caught.value.fix == "Give the output directory of groundup collect."


def test_the_commands_after_a_run_quote_its_directory(a_run: Path) -> None:
    steps = [Step(stage, None, a_run, frozenset()) for stage in STAGES.values()]  # type: ignore[arg-type]
    shown = next_commands(a_run, steps)
    assert len(shown) > 3
    for line in shown:
        assert any(word.startswith(str(a_run)) for word in shlex.split(line)), line
