"""An import either writes a complete model or writes no model."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from groundup.commands.import_model import ImportConfig, run
from groundup.core.artifact import read
from groundup.core.console import Console
from groundup.core.errors import GroundupError
from groundup.hub import load_model
from groundup.tokenizer import Tokenizer

QUIET = Console(quiet=True)
transformers = pytest.importorskip("transformers", reason="pip install '.[dev]'")


@pytest.fixture
def theirs(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """Return a sharded bfloat16 model that transformers saved, with a model card and a license."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=tokenizer.vocab_size + 3,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    folder = tmp_path / "theirs"
    model.save_pretrained(folder, max_shard_size="60kB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    tokenizer.save(folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": [0, 1]}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "LICENSE").write_text("Permission is hereby granted")
    return folder


def test_a_directory_is_imported_with_all_files(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    made = run(ImportConfig(path=str(theirs), out=out), console=QUIET)
    ids = torch.randint(0, 500, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = transformers.AutoModelForCausalLM.from_pretrained(theirs, dtype=torch.float32)(ids).logits
        again = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(ids).logits
        ours = load_model(out)(ids)
    torch.testing.assert_close(again, expected, atol=0, rtol=0)  # The weights are bit-identical to the source model.
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    assert {t.dtype for f in out.glob("*.safetensors") for t in load_file(f).values()} == {torch.bfloat16}
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.6
    assert (out / "LICENSE").read_text() == "Permission is hereby granted"
    assert made.facts["license"] == "mit"
    assert made.facts["verification"]["passed"] and made.facts["verification"]["checks"][0]["who"] == "transformers"
    assert not [path.name for path in out.iterdir() if path.name.startswith(".") or path.is_dir()]
    assert read(out).digest == made.digest


def test_a_finished_import_is_skipped_unless_the_dtype_changes(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    first = run(ImportConfig(path=str(theirs), out=out, verify=False), console=QUIET)
    assert run(ImportConfig(path=str(theirs), out=out), console=QUIET).finished_at == first.finished_at
    run(ImportConfig(path=str(theirs), out=out, dtype="float32"), console=QUIET)
    assert load_model(out, dtype=None).lm_head.weight.dtype == torch.float32
    assert len(list(tmp_path.glob("ours.replaced-*"))) == 1


def swapped(folder: Path) -> None:
    """Exchange the names of two shards. All weights still load, but into the wrong parameters."""
    for path in folder.glob("*.safetensors"):
        weights = load(path.read_bytes())  # The tensors are read into memory, because the file is overwritten.
        for name in [n for n in weights if n.endswith(("up_proj.weight", "gate_proj.weight"))]:
            weights[name] = weights[name] + 1
        save_file(weights, path, metadata={"format": "pt"})


def test_a_failed_verification_leaves_no_directory(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.hub import conversion as intake

    written = intake.save_weights

    def badly(directory: Path, *args: Any, **kwargs: Any) -> Any:
        files = written(directory, *args, **kwargs)
        swapped(directory)
        return files

    monkeypatch.setattr(intake, "save_weights", badly)
    with pytest.raises(GroundupError, match="transformers: same top token"):
        run(ImportConfig(path=str(theirs), out=tmp_path / "ours"), console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


def edited(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def led_out(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../../../etc/passwd")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def endless(folder: Path) -> None:
    definition = json.loads((folder / "tokenizer.json").read_text())
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$|(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pattern, definition["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(definition))


def never_ending(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": 99999}')


HOSTILE = {
    "a pattern that tries for ever": endless,
    "an end that is no token": never_ending,
    "layers without end": lambda folder: edited(folder, num_hidden_layers=2_000_000_000),
    "a width without end": lambda folder: edited(folder, hidden_size=2**60),
    "a number that is a list": lambda folder: edited(folder, hidden_size=[[[]]]),
    "an unknown family": lambda folder: edited(folder, model_type="mamba3"),
    "an index that leads out": led_out,
    "a config of noise": lambda folder: (folder / "config.json").write_bytes(bytes(range(256)) * 100),
    "a cut file": lambda folder: [p.write_bytes(p.read_bytes()[:5000]) for p in folder.glob("*.safetensors")],
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "a tokenizer of noise": lambda folder: (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_malicious_directories_are_rejected_without_files(name: str, theirs: Path, tmp_path: Path) -> None:
    HOSTILE[name](theirs)
    with pytest.raises(GroundupError):
        run(ImportConfig(path=str(theirs), out=tmp_path / "ours"), console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs"]


def test_an_unusable_template_is_reported(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (theirs / "chat_template.jinja").write_text("{% for %}")
    made = run(ImportConfig(path=str(theirs), out=tmp_path / "ours", verify=False), console=Console())
    said = " ".join(capsys.readouterr().err.split())
    assert "The chat template of the model cannot be used" in said
    assert "groundup chat" not in said and "finetune instruct" not in said
    assert not made.facts["chat_template"]


def header(tensors: int = 0, keys: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + rest


HOSTILE_FILES = {
    "tensors without end": header(tensors=2**60),
    "keys without end": header(keys=2**60),
    "a name without end": header(keys=1, rest=struct.pack("<Q", 2**62) + b"general.name"),
    "a list without end": header(keys=1, rest=struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**61)),
    "nothing in it": header(),
    "cut off": header(tensors=1, keys=1, rest=b"\x07"),
    "another version": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_malicious_gguf_files_are_rejected_quickly_without_files(name: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="the memory usage is available only on Unix")
    (tmp_path / "m.gguf").write_bytes(HOSTILE_FILES[name])
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(GroundupError):
        run(ImportConfig(path=str(tmp_path / "m.gguf"), out=tmp_path / "ours"), console=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf"]
    assert time.process_time() - started < 20  # The time includes the import of torch.
    # The limit is 500,000 kB, because imports also need memory.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
