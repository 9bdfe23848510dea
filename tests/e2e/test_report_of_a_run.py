"""The report of a run with real stages: the keys that stages write are the keys that the report reads."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from groundup.commands import collect, evaluate, finetune_classify, finetune_instruct, report, tokenize
from groundup.commands.evaluate import EvaluateConfig
from groundup.commands.finetune_classify import FinetuneClassifyConfig
from groundup.commands.finetune_instruct import FinetuneInstructConfig
from groundup.core.artifact import begin, read
from groundup.core.config import load
from groundup.core.console import Console
from groundup.hub import save_model
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def run_directory(
    tmp_path_factory: pytest.TempPathFactory,
    real_documents: list[str],
    tiny_model: Callable[..., Transformer],
) -> Path:
    """A run with all stages at a small size. Instead of pretraining, the base model has random weights."""
    texts, directory = tmp_path_factory.mktemp("texts"), tmp_path_factory.mktemp("runs") / "tiny"
    for number, text in enumerate(real_documents):
        (texts / f"{number}.txt").write_text(text, encoding="utf-8")
    quiet = Console(quiet=True)
    corpus, tokens, base = (directory / name for name in ("corpus", "tokens", "base"))
    collect.run(collect.CollectConfig(folder=texts, out=corpus, workers=1), console=quiet)
    tokenize.run(tokenize.TokenizeConfig(corpus=corpus, out=tokens, vocab_size=1024), console=quiet)
    tokenizer = Tokenizer.load(tokens / "tokenizer")
    work = begin(base, "pretrain", {}, {"tokens": read(tokens).digest})
    model = tiny_model(tokenizer.vocab_size, context_length=128)
    files = save_model(base, model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(base)
    work.finish({"parameters": sum(p.numel() for p in model.parameters())}, files)

    longest = sorted(real_documents, key=len)[-3:]
    parts = [(text.split("\n")[0].strip(), " ".join(p.split())) for text in longest for p in text.split("\n\n")]
    parts = [(name, text) for name, text in parts if len(text.split()) > 12][:150]
    table(texts / "labelled.csv", ("text", "label"), [(text, name) for name, text in parts])
    pairs = [(text.split(" ")[:6], text.split(" ")[6:12]) for _, text in parts]
    table(texts / "pairs.csv", ("question", "answer"), [(" ".join(a), " ".join(b)) for a, b in pairs])
    small: dict[str, Any] = {"model": str(base), "num_epochs": 1.0, "threads": 1}
    chat = {"data": str(texts / "pairs.csv"), "out": str(directory / "chat"), "compile": False}
    finetune_instruct.run(load(FinetuneInstructConfig, small | chat), console=quiet)
    classifier = {"data": str(texts / "labelled.csv"), "out": str(directory / "classifier")}
    finetune_classify.run(load(FinetuneClassifyConfig, small | classifier), console=quiet)
    held_out = EvaluateConfig(model=base, out=directory / "report", corpus=corpus, compressors=False, samples=1)
    evaluate.run(held_out, console=quiet)
    return directory


def table(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def test_the_report_has_the_results_of_the_stages(run_directory: Path) -> None:
    """A renamed key would silently remove a section."""
    report.run(report.ReportConfig(run=run_directory), console=Console(quiet=True))
    page = unescape((run_directory / "report.html").read_text(encoding="utf-8"))
    flat = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    chat, classifier, base = (read(run_directory / name).facts for name in ("chat", "classifier", "report"))
    assert f"{base['bpb']:.3f}" in flat
    assert f"{chat['held_out']['fine_tuned']['loss']:.3f}" in flat
    assert f"{chat['held_out']['base']['loss']:.3f}" in flat
    assert chat["held_out"]["base"]["format"] in flat
    assert f"{100 * classifier['test']['accuracy']['value']:.1f} %" in flat
    assert f"{100 * classifier['tfidf']['accuracy']['value']:.1f} %" in flat
    assert f"{chat['examples']['train']:,} training examples, {chat['examples']['test']:,} held out" in flat
    for transcript in chat["transcripts"]:
        assert re.sub(r"\s+", " ", transcript["messages"][0]["content"]) in flat
    for label in classifier["labels"]:
        assert label in flat
    for heading in ("Instruction following", "Classification", "Language modeling", "Answers", "Classified texts"):
        assert f">{heading}</h3>" in page
    assert page.count("Training loss</strong>") == 2
    assert "Training accuracy</strong>" in page


def test_inputs_of_all_stages_are_verified(run_directory: Path) -> None:
    """The report checks the chain of digests from the classifier to the corpus."""
    report.run(report.ReportConfig(run=run_directory), console=Console(quiet=True))
    page = (run_directory / "report.html").read_text(encoding="utf-8")
    for above, below in (("tokens", "corpus"), ("base", "tokens"), ("chat", "base"), ("classifier", "base")):
        row = re.search(rf'<tr><th scope="row">{above}/</th>.*?</tr>', page)
        assert row is not None
        assert f"✓ {below}/" in row[0], above
    assert read(run_directory).inputs.keys() == {"corpus", "tokens", "base", "chat", "classifier", "report"}
