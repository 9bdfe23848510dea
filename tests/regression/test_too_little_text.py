"""If a corpus has too little text, its data card is still written and shows which text was dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from groundup.commands import collect, corpus_explain, tokenize
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.corpus import read_card

QUIET = Console(quiet=True)


def test_too_little_text_leaves_its_card_and_drop_log(tmp_path: Path, real_documents: list[str]) -> None:
    texts, out = tmp_path / "texts", tmp_path / "a corpus"
    texts.mkdir()
    (texts / "short.txt").write_text("Too short.", encoding="utf-8")
    for name in ("one.txt", "two.txt"):
        (texts / name).write_text(real_documents[5], encoding="utf-8")
    config = load(collect.CollectConfig, {"folder": str(texts), "out": str(out), "workers": 1})
    for _ in range(2):  # the second run resumes
        with pytest.raises(DataError, match="of training text") as caught:
            collect.run(config, console=QUIET)
        assert f"groundup corpus explain '{out}' FILE" in caught.value.fix
        assert set(read_card(out)["sources"][0]["drops"]) == {"too short", "duplicate"}
        assert "too short" in (out / "card.html").read_text(encoding="utf-8")
        asked = load(corpus_explain.CorpusExplainConfig, {"corpus": str(out), "document": "short.txt"})
        (record,) = corpus_explain.run(asked, console=QUIET)
        assert getattr(record, "reason", None) == "too short"
    with pytest.raises(DataError, match="the unfinished output of collect"):  # the corpus stays unfinished
        tokenize.run(load(tokenize.TokenizeConfig, {"corpus": str(out), "out": str(tmp_path / "t")}), console=QUIET)
