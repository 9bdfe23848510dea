"""A mixture gives each source its requested share, within the limit of epochs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.corpus import CorpusSettings, FolderSource, build_corpus, read_documents
from groundup.corpus.executor import ProcessPool
from groundup.corpus.mix import MixSettings, mixture


def _bytes_read(settings: MixSettings, sizes: dict[str, int]) -> dict[str, float]:
    return {name: share.epochs * sizes[name] for name, share in mixture(settings, sizes).items()}


def test_the_shares_of_gpt_3() -> None:
    """The weights and sizes of table 2.2 of Brown et al. 2020 give its epochs, up to rounded weights."""
    tokens = {"crawl": 410e9, "webtext2": 19e9, "books1": 12e9, "books2": 55e9, "wikipedia": 3e9}
    weights = {"crawl": 60.0, "webtext2": 22.0, "books1": 8.0, "books2": 8.0, "wikipedia": 3.0}
    sizes = {name: int(4 * count) for name, count in tokens.items()}
    made = mixture(MixSettings(weights=weights, budget_tokens=300_000_000_000), sizes)
    paper = {"crawl": 0.44, "webtext2": 2.9, "books1": 1.9, "books2": 0.43, "wikipedia": 3.4}
    for name, epochs in paper.items():
        assert made[name].epochs == pytest.approx(epochs, rel=0.2), name


def test_other_sources_replace_a_limited_source() -> None:
    read = _bytes_read(MixSettings(weights={"small": 50, "a": 30, "b": 20}), {"small": 100, "a": 10_000, "b": 10_000})
    assert read["small"] == 400  # at most four epochs
    assert read["a"] / read["b"] == pytest.approx(1.5)
    assert sum(read.values()) == pytest.approx(20_100)


def test_all_at_their_limit_is_less_than_the_budget() -> None:
    read = _bytes_read(MixSettings(weights={"a": 1, "b": 1}, budget_tokens=10**9, max_epochs=2), {"a": 100, "b": 300})
    assert read == {"a": 200, "b": 600}


def test_temperature_evens_out() -> None:
    sizes = {"large": 1_000_000, "small": 10_000}
    as_they_are = _bytes_read(MixSettings(temperature=1), sizes)
    even = _bytes_read(MixSettings(temperature=2, max_epochs=100), sizes)
    assert as_they_are == pytest.approx(sizes)
    assert even["large"] / even["small"] == pytest.approx(10)


def test_epochs_are_used_as_given() -> None:
    assert _bytes_read(MixSettings(epochs={"a": 0.5, "b": 3}), {"a": 100, "b": 10}) == {"a": 50, "b": 30}


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"weights": {"a": 1.0}, "temperature": 2.0}, "cannot be combined"),
        ({"weights": {"a": -1.0}}, "negative"),
        ({"weights": {"a": 0.0}}, "all weights are 0"),
    ],
)
def test_invalid_values_are_refused(values: dict[str, object], word: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=word):
        load(MixSettings, values)


def test_unknown_and_missing_sources_are_named() -> None:
    with pytest.raises(ConfigError, match="wikipedia"):
        MixSettings(weights={"wikipdia": 1.0, "web": 1.0}).require_known(["wikipedia", "web"])
    with pytest.raises(ConfigError, match="no value for web"):
        MixSettings(weights={"wikipedia": 1.0}).require_known(["wikipedia", "web"])


def test_a_mixed_corpus_has_the_requested_shares(real_documents: list[str], tmp_path: Path) -> None:
    """Only training documents are repeated. Validation documents occur once, and not in the training set."""
    for name, texts in (("large", real_documents[::2]), ("small", real_documents[1::8])):
        (tmp_path / name).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / name / f"{number}.txt").write_text(text, encoding="utf-8")
    settings = CorpusSettings(
        sources=[FolderSource(path=tmp_path / "large"), FolderSource(path=tmp_path / "small")],
        mix=MixSettings(epochs={"large": 0.5, "small": 2.25}),
        min_bytes=1000,
    )
    out = tmp_path / "corpus"
    card, _ = build_corpus(settings, out, executor=ProcessPool(1), console=Console(quiet=True))
    read = list(read_documents(out, "train"))
    times = {source: Counter(d.id for d in read if d.source == source) for source in ("large", "small")}
    assert set(times["large"].values()) == {1}
    assert set(times["small"].values()) == {2, 3}
    whole = {source["name"]: source["documents"] for source in card["sources"]}
    assert 0.3 < len(times["large"]) / whole["large"] < 0.65
    assert len(times["small"]) > 0.8 * whole["small"]
    assert card["train"] == {"documents": len(read), "bytes": sum(len(d.text.encode()) for d in read)}
    held_out = {d.id for d in read_documents(out, "validation")}
    assert held_out
    assert not held_out & {d.id for d in read}
    assert {source["name"]: source["mixture"]["epochs"] for source in card["sources"]} == {"large": 0.5, "small": 2.25}
