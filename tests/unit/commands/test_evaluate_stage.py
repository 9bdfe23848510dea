"""`groundup evaluate` and `groundup generate` work on a run with real text, real shards and a tiny model."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands import collect, evaluate, generate, tokenize
from groundup.commands.evaluate import EvaluateConfig
from groundup.commands.generate import GenerateConfig
from groundup.core.artifact import begin
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, real_documents: list[str], tiny_model: Callable[..., Transformer]
) -> Path:
    """Return a run that contains all outputs up to a model with random weights."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    texts = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(real_documents):
        (texts / f"{number}.txt").write_text(text, encoding="utf-8")
    corpus, tokens, base = (directory / name for name in ("corpus", "tokens", "base"))
    collect.run(collect.CollectConfig(folder=texts, out=corpus, workers=1))
    tokenize.run(tokenize.TokenizeConfig(corpus=corpus, out=tokens, vocab_size=1024))
    tokenizer = Tokenizer.load(tokens / "tokenizer")
    model = tiny_model(tokenizer.vocab_size)
    work = begin(base, "pretrain", {}, {})
    files = save_model(base, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(base)
    work.finish({"tokens_seen": 12345}, files)
    return directory


@pytest.fixture(scope="module")
def report(finished_run: Path) -> dict[str, object]:
    evaluate.run(EvaluateConfig(model=finished_run, seed=3))
    return json.loads((finished_run / "report" / "report.json").read_text(encoding="utf-8"))


def test_a_run_is_scored_on_its_held_out_text(finished_run: Path, report: dict[str, object]):
    """Exactly the held-out text is scored: the token counts equal the counts of the tokenize stage."""
    held_out = json.loads((finished_run / "tokens" / "artifact.json").read_text())["facts"]["validation"]
    assert {name: report["scored"][name] for name in ("documents", "tokens", "bytes")} == held_out
    assert report["bpb_interval"][0] < report["bpb"] < report["bpb_interval"][1]


def test_the_report_contains_the_compressors(report: dict[str, object]):
    """A model with random weights is worse than all compressors, and the report must show this result."""
    seen = [score for score in report["compressors"] if score["saw_training"]]
    assert {score["name"] for score in seen} == {"xz -9e", "PPMd order 5", "PPMd order 8"}
    assert {score["better"] for score in seen} == {"the compressor"}
    assert "not better than" in report["summary"]


def test_samples_and_facts(finished_run: Path, report: dict[str, object]):
    assert [bool(sample["prompt"]) for sample in report["samples"]] == [True, True, False]
    assert report["model"]["tokens_seen"] == 12345
    assert report["model"]["parameters"] > 0
    page = (finished_run / "report" / "report.md").read_text(encoding="utf-8")
    assert report["summary"] in page


def test_a_finished_evaluation_is_skipped(finished_run: Path, report: dict[str, object]):
    before = (finished_run / "report" / "report.json").stat().st_mtime_ns
    artifact = evaluate.run(EvaluateConfig(model=finished_run, seed=3))
    assert artifact.facts["bpb"] == report["bpb"]
    assert (finished_run / "report" / "report.json").stat().st_mtime_ns == before


def test_the_table_of_a_finished_evaluation_is_shown_again(finished_run: Path, tmp_path: Path):
    """In an earlier release, a repeated evaluation showed no table, and a user's file was called held-out text."""
    letter = tmp_path / "a letter.txt"
    letter.write_text("Dear reader, " * 40)
    said = []
    for _ in range(2):
        shown = io.StringIO()
        config = EvaluateConfig(model=finished_run, data=letter, samples=0, compressors=False)
        made = evaluate.run(config, console=Console(stream=shown))
        said.append(shown.getvalue())
    table = said[0][said[0].index("Bits per byte of ") :]
    assert table.startswith(f"Bits per byte of {letter}\n")
    assert f"{made.facts['bpb']:.3f}" in table
    assert said[1].endswith(table)
    assert table.splitlines()[-1].startswith(f"{finished_run / 'report-a letter'}: ")
    assert f"| on {letter} " in (finished_run / "report-a letter" / "report.md").read_text(encoding="utf-8")


def test_a_missing_file_is_named_with_a_similar_one(finished_run: Path, tmp_path: Path):
    """In an earlier release, the error was "no such folder", with a rule about the sources of a corpus."""
    (tmp_path / "letter.txt").write_text("Dear reader, ")
    with pytest.raises(DataError, match=r"leter\.txt: no such file") as caught:
        evaluate.run(EvaluateConfig(model=finished_run, data=tmp_path / "leter.txt"))
    assert caught.value.fix == f"Did you mean {tmp_path / 'letter.txt'}?"
    with pytest.raises(DataError, match="Check the path"):
        evaluate.run(EvaluateConfig(model=finished_run, data=tmp_path / "none" / "letter.txt"))


@pytest.mark.skipif(os.name == "nt", reason="requires file names that can be any bytes")
def test_names_and_prompts_that_are_not_utf8_are_accepted(finished_run: Path, tmp_path: Path):
    """Old archives contain file names in Latin-1, which Python decodes to lone surrogates."""
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("Dear reader, " * 40)
    evaluate.run(load(EvaluateConfig, {"model": str(finished_run), "data": str(path), "compressors": False}))
    values = {"model": str(finished_run), "prompt": os.fsdecode(b"caf\xe9"), "max_tokens": 5, "seed": 1}
    assert generate.run(load(GenerateConfig, values)) == generate.run(
        GenerateConfig(model=finished_run, prompt="caf\ufffd", max_tokens=5, seed=1)
    )


def test_shards_without_a_corpus_give_the_same_score(finished_run: Path, report: dict[str, object], tmp_path: Path):
    """The corpus may have been deleted. The score must not depend on where the text is read from."""
    config = EvaluateConfig(
        model=finished_run,
        tokens=finished_run / "tokens",
        out=tmp_path / "report",
        compressors=False,
        samples=0,
    )
    artifact = evaluate.run(config)
    assert artifact.facts["bpb"] == pytest.approx(report["bpb"], rel=1e-6)


def test_a_users_file_gets_a_separate_report(finished_run: Path, report: dict[str, object], tmp_path: Path):
    """In the report directory of the run, this report would overwrite the run's report."""
    (tmp_path / "letter.txt").write_text("Dear reader, " * 40)
    evaluate.run(EvaluateConfig(model=finished_run, data=tmp_path / "letter.txt", compressors=False))
    found = json.loads((finished_run / "report-letter" / "report.json").read_text(encoding="utf-8"))
    assert found["scored"]["documents"] == 1
    assert found["scored"]["bytes"] == 13 * 40
    assert json.loads((finished_run / "report" / "report.json").read_text(encoding="utf-8")) == report


def test_a_model_outside_of_a_run_needs_data(finished_run: Path, tmp_path: Path):
    copied = tmp_path / "elsewhere" / "model"
    copied.parent.mkdir()
    copied.mkdir()
    for file in (finished_run / "base").iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="--data"):
        evaluate.run(EvaluateConfig(model=copied))


def test_generate_streams_what_it_returns(finished_run: Path):
    pieces: list[str] = []
    config = GenerateConfig(model=finished_run, prompt="The", max_tokens=20, seed=1)
    done = generate.run(config, on_text=pieces.append)
    assert "".join(pieces) == done.text
    assert generate.run(config) == done


def test_generate_without_a_model_lists_the_contents(finished_run: Path):
    with pytest.raises(DataError, match="base"):
        generate.run(GenerateConfig(model=finished_run / "bass", prompt="The"))
