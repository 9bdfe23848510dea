"""`groundup tokenize` works on a corpus of real text that `groundup collect` wrote."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers

from groundup.commands import collect, tokenize
from groundup.core.checksums import write_checked_json
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, ResourceError
from groundup.core.types import Split
from groundup.corpus import read_documents
from groundup.data import TokenShards
from groundup.tokenizer import Tokenizer

SPLITS: tuple[Split, ...] = ("train", "validation")


@pytest.fixture(scope="module")
def corpus(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    for number, text in enumerate(real_documents):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    out = folder.with_name(folder.name + "-corpus")
    collect.run(collect.CollectConfig(folder=folder, out=out, validation_fraction=0.1, workers=1))
    return out


def run(corpus: Path, out: Path, **settings: object) -> tokenize.Artifact:
    return tokenize.run(tokenize.TokenizeConfig(corpus=corpus, out=out, **settings))


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.suffix in (".npy", ".json")
    }


def test_every_document_of_both_splits_is_there(corpus: Path, tmp_path: Path) -> None:
    artifact = run(corpus, tmp_path / "tokens", vocab_size=1024)
    tokenizer = Tokenizer.load(tmp_path / "tokens" / "tokenizer")
    assert tokenizer.vocab_size == artifact.facts["vocab_size"] == 1024
    assert artifact.facts["fast_encoding"]
    for split in SPLITS:
        shards = TokenShards(tmp_path / "tokens", split)
        texts = [document.text for document in read_documents(corpus, split)]
        assert [tokenizer.decode(shards.document(i).tolist()) for i in range(shards.n_documents)] == texts
        assert artifact.facts[split] == {
            "documents": len(texts),
            "tokens": shards.n_tokens,
            "bytes": sum(len(text.encode()) for text in texts),
        }
        shards.verify()
    left = {path.relative_to(tmp_path / "tokens") for path in (tmp_path / "tokens").rglob("*") if path.is_file()}
    assert {Path(name) for name in artifact.outputs} == left - {Path("artifact.json")}


def test_vocabulary_follows_from_the_corpus_unless_given(corpus: Path, tmp_path: Path) -> None:
    derived = run(corpus, tmp_path / "derived")
    assert derived.facts["vocab_size"] % 64 == 0
    assert 320 < derived.facts["vocab_size"] < 4096
    reused = run(corpus, tmp_path / "reused", tokenizer=tmp_path / "derived" / "tokenizer")
    assert reused.facts == derived.facts
    assert reused.inputs["corpus"] == derived.inputs["corpus"]


def test_a_finished_run_is_skipped_and_a_cut_off_one_ends_the_same(corpus: Path, tmp_path: Path) -> None:
    """The run was interrupted after the vocabulary and one shard. The shard requires that this vocabulary is kept."""
    out = tmp_path / "tokens"
    first = run(corpus, out, vocab_size=1024)
    assert run(corpus, out, vocab_size=1024) == first
    whole = contents(out)
    vocabulary = (out / "tokenizer" / "tokenizer.json").stat()
    (out / "artifact.json").unlink()
    (out / "index.json").unlink()
    (out / "validation-00000.bytes.npy").unlink()
    kept = {name: digest for name, digest in first.outputs.items() if (out / name).is_file()}
    started = {"stage": "tokenize", "fingerprint": first.fingerprint, "seconds": 1.0, "kept": kept}
    write_checked_json(out / "started.json", started)
    again = run(corpus, out, vocab_size=1024)
    assert again.outputs == first.outputs
    # The tokenizer was not trained again.
    assert (out / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == vocabulary.st_mtime_ns
    assert {name: data for name, data in contents(out).items() if name != "artifact.json"} == {
        name: data for name, data in whole.items() if name != "artifact.json"
    }


def test_what_came_out_is_told_also_when_it_was_done_before(corpus: Path, tmp_path: Path) -> None:
    """If a repeated command printed nothing, users would think that the command did nothing."""
    said = []
    for _ in range(2):
        shown = io.StringIO()
        config = tokenize.TokenizeConfig(corpus=corpus, out=tmp_path / "tokens", vocab_size=512)
        facts = tokenize.run(config, console=Console(stream=shown)).facts
        said.append(shown.getvalue().splitlines())
    assert said[1][-1] == said[0][-1]
    assert said[1][-1].startswith(f"{tmp_path / 'tokens'}: {facts['train']['tokens']:,} training tokens")
    assert "nothing to do" in said[1][0]


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_full_disk_is_seen_before_the_encoding(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    """The estimated size is close to the written size. A wrong estimate would reject a valid run or waste an hour."""
    done = run(corpus, tmp_path / "done", vocab_size=512)
    size = sum(path.stat().st_size for path in (tmp_path / "done").glob("*.npy"))
    assert done.facts["train"]["documents"] > 20
    free = int(size * (0.8 if lacking else 1.2))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    if lacking:
        with pytest.raises(ResourceError, match="encoding needs"):
            run(corpus, tmp_path / "tokens", vocab_size=512)
        assert not list((tmp_path / "tokens").glob("*.npy"))
    else:
        assert run(corpus, tmp_path / "tokens", vocab_size=512).outputs == done.outputs


def test_the_slow_way_is_said(corpus: Path, tmp_path: Path) -> None:
    """A run that is five times slower would look like a problem of the machine if there were no message."""
    run(corpus, tmp_path / "ours", vocab_size=512)
    ours = Tokenizer.load(tmp_path / "ours" / "tokenizer")
    definition = ours.definition | {"normalizer": {"type": "NFC"}}  # the tokenizer of Qwen has this normalizer
    Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(definition)), ours.config).save(tmp_path / "nfc")
    shown = io.StringIO()
    config = tokenize.TokenizeConfig(corpus=corpus, out=tmp_path / "out", tokenizer=tmp_path / "nfc")
    artifact = tokenize.run(config, console=Console(quiet=True, stream=shown))
    assert not artifact.facts["fast_encoding"]
    assert "without tiktoken" in shown.getvalue()
    # The text is already in NFC, so the normalizer does not change it.
    assert artifact.facts["train"] == run(corpus, tmp_path / "ours", vocab_size=512).facts["train"]


def test_errors_say_what_to_do(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the earlier stage"):
        run(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(DataError, match=r"set vocab_size <= [\d,]+"):
        run(corpus, tmp_path / "large", vocab_size=64_000)
    with pytest.raises(ConfigError, match="multiple of 64"):
        run(corpus, tmp_path / "odd", vocab_size=1000)
    with pytest.raises(ConfigError, match="Omit one of the two"):
        run(corpus, tmp_path / "both", vocab_size=1024, tokenizer=tmp_path)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        run(corpus, tmp_path / "none", tokenizer=tmp_path)
