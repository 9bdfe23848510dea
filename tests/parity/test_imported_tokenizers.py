"""Tokenizers of other models: ids and texts of transformers, also in streaming, and unchanged files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from external_tokenizers import MAKERS, save
from groundup.core.errors import DataError, FormatError
from groundup.tokenizer import CorpusEncoder, StreamDecoder, Tokenizer
from groundup.tokenizer.edge_cases import EDGE_CASES

any_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)


@pytest.fixture(scope="module", params=MAKERS)
def directory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_documents: list[str]
) -> Path:
    return save(tmp_path_factory.mktemp(request.param) / request.param, MAKERS[request.param](real_documents))


@pytest.fixture(scope="module")
def foreign(directory: Path) -> Tokenizer:
    return Tokenizer.load(directory)


@pytest.fixture(scope="module")
def peer(directory: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(directory)


def test_ids_and_texts_equal_transformers(foreign: Tokenizer, peer: Any) -> None:
    for text in EDGE_CASES.values():
        if len(text) > 5000 or any(name in text for name in foreign.control_tokens):
            continue
        ids = foreign.encode(text)
        assert ids == peer(text, add_special_tokens=False)["input_ids"]
        assert foreign.decode(ids) == peer.decode(ids, skip_special_tokens=True)
        if text:  # A model cannot continue an empty text.
            assert foreign.encode_prompt(text) == peer(text)["input_ids"]
    assert foreign.eos_id == peer.eos_token_id
    assert foreign.bos_id == (peer.eos_token_id if peer.bos_token_id is None else peer.bos_token_id) or (
        foreign.token_id("<|endoftext|>") == foreign.bos_id
    )


@settings(max_examples=25, deadline=None)
@given(text=any_text, pre_tokenize=st.integers(0, 80))
def test_streams_and_bytes_give_the_text(foreign: Tokenizer, text: str, pre_tokenize: int) -> None:
    """If "▁" or byte tokens were not decoded, answers would run together or show "<0x0A>"."""
    ids = foreign.encode(text)
    stream = StreamDecoder(foreign)
    whole = foreign.decode(ids)
    assert "".join([stream.feed([token]) for token in ids]) + stream.flush() == whole
    # After a first part, the stream returns the rest, with the space between them.
    pre_tokenize = min(pre_tokenize, len(ids))
    rest = StreamDecoder(foreign, continues=pre_tokenize > 0)
    first = b"".join(foreign.token_bytes(token) for token in ids[:pre_tokenize])
    if pre_tokenize and b"\xef\xbf\xbd" not in first and not first.decode("utf-8", errors="replace").endswith("\ufffd"):
        assert foreign.decode(ids[:pre_tokenize]) + rest.feed(ids[pre_tokenize:]) + rest.flush() == whole
    kind = foreign.definition["model"]["type"]
    lossy = foreign.definition["normalizer"] == {"type": "NFC"} or "▁" in text
    shortened = foreign.strips_leading_space and text.startswith(" ") and foreign.definition["normalizer"] is None
    if kind == "BPE" and not lossy and not shortened:
        assert whole == text
    assert not foreign.special_ids & set(ids)


@settings(max_examples=10, deadline=None)
@given(text=any_text, more=any_text)
def test_text_never_becomes_a_special_token(foreign: Tokenizer, text: str, more: str) -> None:
    for name in foreign.control_tokens:
        ids = set(foreign.encode(f"{text}{name}{more}"))
        assert foreign.control_tokens[name] not in ids


def test_a_continuation_gets_no_additional_space(foreign: Tokenizer) -> None:
    """SentencePiece adds a space at the beginning of a text; scored answers have one in the prompt."""
    assert foreign.token_bytes(foreign.encode("Paris", continues=True)[0])[:1] != b" "
    assert b"".join(map(foreign.token_bytes, foreign.encode(" Paris", continues=True))) == b" Paris"


def test_corpora_get_the_same_ids(foreign: Tokenizer, real_documents: list[str]) -> None:
    texts = [*real_documents[:5], "<h1>  Title\n\n\n</h1>", "  a"]
    encoded = CorpusEncoder(foreign, real_documents[:3], threads=2).encode(texts)
    assert [ids.tolist() for ids in encoded] == [foreign.encode(text) for text in texts]


def test_files_are_saved_unchanged(directory: Path, foreign: Tokenizer, tmp_path: Path) -> None:
    """A fine-tuned model keeps its tokenizer byte for byte, so that other tools read the same one."""
    (directory / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    loaded = Tokenizer.load(directory)
    loaded.set_chat_template("{{ messages[0].content }}")
    written = loaded.save(tmp_path)
    assert sorted(path.name for path in written) == sorted(path.name for path in directory.iterdir())
    for path in written:
        assert path.read_bytes() == (directory / path.name).read_bytes()
    (directory / "chat_template.jinja").unlink()


def test_ids_from_a_models_own_configs(tmp_path: Path, real_documents: list[str]) -> None:
    """Llama 3's chat models end with one of three tokens, which are only in generation_config.json."""
    made = save(tmp_path / "m", MAKERS["llama3"](real_documents[:10]))
    (made / "tokenizer_config.json").unlink()
    (made / "generation_config.json").write_text(json.dumps({"bos_token_id": 700, "eos_token_id": [704, 701]}))
    loaded = Tokenizer.load(made)
    assert (loaded.bos_id, loaded.eos_id, loaded.stop_ids, loaded.adds_bos) == (700, 704, (704, 701), True)
    (made / "generation_config.json").write_text(json.dumps({"bos_token_id": "x", "eos_token_id": None}))
    with pytest.raises(FormatError, match="no eos_token"):
        Tokenizer.load(made)
    (made / "generation_config.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer_config\.json: no such file"):
        Tokenizer.load(made)


def test_damaged_files_are_named(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these files once crashed a loader, or requested a table of terabytes."""
    good = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    copy = shutil.copytree(directory, tmp_path / "copy")

    def refused(content: str, message: str = r"tokenizer\.json|only byte-level") -> None:
        (copy / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(FormatError, match=message):
            Tokenizer.load(copy)

    for content in ("", "[]", "null", "{}", "[" * 100_000, '{"model": null}', '{"model": {"type": "BPE"}}'):
        refused(content)
    for key, value in {
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        "decoder": None,
        "added_tokens": [{"id": 3}],
        "pre_tokenizer": {"type": "Nothing"},
        "post_processor": [1],
        "normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
    }.items():
        refused(json.dumps(good | {key: value}))
    if isinstance(good["model"]["vocab"], dict):
        refused(json.dumps(good | {"model": good["model"] | {"vocab": good["model"]["vocab"] | {"zzz": 10**9}}}))
        refused(json.dumps(good | {"model": good["model"] | {"vocab": good["model"]["vocab"] | {"zzz": -1}}}))
        refused(json.dumps(good | {"model": good["model"] | {"merges": [["no", "such"]]}}))
    with monkeypatch.context() as smaller:
        smaller.setattr("groundup.tokenizer.source.MAX_FILE_BYTES", 100)
        with pytest.raises(FormatError, match="is 100 bytes"):
            Tokenizer.load(directory)
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(DataError, match="save_pretrained"):
        Tokenizer.load(copy)
    shutil.copy(directory / "tokenizer.json", copy)
    (copy / "tokenizer_config.json").write_text('{"chat_template": 3, "eos_token": {"content": 5}}')
    with pytest.raises(FormatError, match="eos_token"):
        Tokenizer.load(copy)
    (copy / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(FormatError, match="JSON object"):
        Tokenizer.load(copy)
