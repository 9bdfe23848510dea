"""A run as the stages leave it: a real corpus and vocabulary, and made-up records of the later stages."""

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

from made_up_run import CLASSIFIED, EVALUATED, INSTRUCTED, PRETRAINED, Json, MakeRun, leave, losses


@pytest.fixture(scope="session")
def half_run(tmp_path_factory: pytest.TempPathFactory, real_documents: list[str]) -> Path:
    """Collected and tokenized, by the stages themselves."""
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
    """Makes a whole run; `edit` changes the facts before they are written."""

    def make(name: str = "whole", *, edit: Callable[[Json], None] = lambda _: None) -> Path:
        directory = tmp_path / name
        shutil.copytree(half_run, directory)
        facts = copy.deepcopy(
            {"base": PRETRAINED, "report": EVALUATED, "chat": INSTRUCTED, "classifier": CLASSIFIED, "steps": 60}
        )
        edit(facts)
        corpus, tokens = (artifact.read(directory / part).digest for part in ("corpus", "tokens"))
        log = losses(facts["steps"])

        def trained(name: str) -> Json:
            return {"metrics.jsonl": log, "model.safetensors": f"stands for the weights of {name}"}

        base = leave(directory / "base", "pretrain", facts["base"], {"tokens": tokens}, trained("base"), 382.7)
        found = {"report.json": json.dumps(facts["report"])}
        summary = {"bpb": facts["report"].get("bpb"), "source": "held-out text"}
        leave(directory / "report", "evaluate", summary, {"model": base, "text": corpus}, found, 33.4)
        leave(
            directory / "chat",
            "finetune.instruct",
            facts["chat"],
            {"model": base, "data": "ab" * 16},
            trained("chat"),
            71.2,
        )
        leave(
            directory / "classifier",
            "finetune.classify",
            facts["classifier"],
            {"model": base},
            trained("classifier"),
            48.9,
        )
        return directory

    return make
