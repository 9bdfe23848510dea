"""A run with a real corpus and tokenizer, and synthetic records of the later stages."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.commands import collect, tokenize
from groundup.core import artifact

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from synthetic_run import CLASSIFIED, EVALUATED, INSTRUCTED, PRETRAINED, Json, MakeRun, training_log, write_stage


@pytest.fixture(scope="session")
def half_run(tmp_path_factory: pytest.TempPathFactory, real_documents: list[str]) -> Path:
    """A run with the output of the real collect and tokenize stages."""
    directory = tmp_path_factory.mktemp("report") / "half"
    texts = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(real_documents):
        (texts / f"{number}.txt").write_text(text, encoding="utf-8")
    (texts / "short.txt").write_text("Hello.", encoding="utf-8")
    collect.run(collect.CollectConfig(folder=texts, out=directory / "corpus", workers=1))
    tokenize.run(tokenize.TokenizeConfig(corpus=directory / "corpus", out=directory / "tokens", vocab_size=1024))
    return directory


@pytest.fixture
def make_run(half_run: Path, tmp_path: Path) -> MakeRun:
    """Return a function that creates a complete run; `edit` changes the facts before they are written."""

    def make(name: str = "run", *, edit: Callable[[Json], None] = lambda _: None) -> Path:
        directory = tmp_path / name
        shutil.copytree(half_run, directory)
        facts = copy.deepcopy(
            {"base": PRETRAINED, "report": EVALUATED, "chat": INSTRUCTED, "classifier": CLASSIFIED, "steps": 60}
        )
        edit(facts)
        corpus, tokens = (artifact.read(directory / part).digest for part in ("corpus", "tokens"))
        log = training_log(facts["steps"])

        def model_files(name: str) -> Json:
            return {"metrics.jsonl": log, "model.safetensors": f"placeholder for the weights of {name}"}

        base = write_stage(
            directory / "base", "pretrain", facts["base"], {"tokens": tokens}, model_files("base"), 382.7
        )
        report = {"report.json": json.dumps(facts["report"])}
        summary = {"bpb": facts["report"].get("bpb"), "source": "held-out text"}
        write_stage(directory / "report", "evaluate", summary, {"model": base, "text": corpus}, report, 33.4)
        write_stage(
            directory / "chat",
            "finetune.instruct",
            facts["chat"],
            {"model": base, "data": "ab" * 16},
            model_files("chat"),
            71.2,
        )
        write_stage(
            directory / "classifier",
            "finetune.classify",
            facts["classifier"],
            {"model": base},
            model_files("classifier"),
            48.9,
        )
        return directory

    return make
