"""Fine-tuning with LoRA: adapters are saved and work in every command, and a wrong base model is an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import load_file, save_file

from groundup.commands import (
    STAGES,
    classify,
    compare,
    finetune_classify,
    finetune_instruct,
    import_model,
    merge,
    model_show,
)
from groundup.commands.classify import ClassifyConfig
from groundup.core import artifact
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, FormatError
from groundup.hub import load_classifier, load_model, save_model
from groundup.hub.adapted import with_adapter
from groundup.hub.loading import open_model
from groundup.hub.resolve import resolve_classifier, resolve_model
from groundup.inference import Engine, GenerationRequest, Sampling
from groundup.kernels import Machine
from groundup.model import Transformer
from groundup.tokenizer import Tokenizer
from groundup.train import fine_tuning_method

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def directory(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, tiny_model: Callable[..., Transformer]
) -> Path:
    """Return a run whose base model has random weights."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    work = artifact.begin(run / "base", "pretrain", {}, {})
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    files = save_model(run / "base", tiny_model(tokenizer.vocab_size, context_length=128), **ids)
    work.finish({}, files + tokenizer.save(run / "base"))
    return run


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, real_documents: list[str]) -> Path:
    """Return a table with beginnings of real paragraphs and their continuations."""
    paragraphs = dict.fromkeys(" ".join(part.split()) for text in real_documents for part in text.split("\n\n"))
    words = [paragraph.split(" ") for paragraph in paragraphs if len(paragraph.split(" ")) > 12][:160]
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"question": " ".join(each[:6]), "answer": " ".join(each[6:12])} for each in words]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def instruct(pairs: Path, model: Path, out: Path, **changes: Any) -> artifact.Artifact:
    keys = {"data": str(pairs), "model": str(model), "out": str(out), "threads": 1, "compile": False, "num_epochs": 4.0}
    keys |= {
        "method": "lora",
        "lora": {"rank": 8},
        "learning_rate": 0.02,
        "checkpoint_seconds": 0.0,
        "num_evaluations": 1,
    }
    config = load(finetune_instruct.FinetuneInstructConfig, keys | changes)
    return finetune_instruct.run(config, console=QUIET)


@pytest.fixture(scope="module")
def adapter(pairs: Path, directory: Path) -> Path:
    instruct(pairs, directory / "base", directory / "chat")
    return directory / "chat"


@pytest.fixture
def moved(adapter: Path, tmp_path: Path) -> Path:
    """Return a copy of the run. The original directory no longer exists."""
    run = shutil.copytree(adapter.parent, tmp_path / "elsewhere")
    record = json.loads((run / "chat" / "groundup.json").read_text())
    record["base"]["path"] = str(tmp_path / "gone")
    (run / "chat" / "groundup.json").write_text(json.dumps(record))
    config = json.loads((run / "chat" / "adapter_config.json").read_text())
    (run / "chat" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gone"}))
    artifact.accept(run / "chat" / "artifact.json")
    return run / "chat"


def test_adapters_are_saved_and_trained(adapter: Path) -> None:
    made = artifact.read(adapter)
    losses = [json.loads(line)["loss"] for line in (adapter / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert not list(adapter.glob("model*.safetensors"))
    assert {"adapter_model.safetensors", "adapter_config.json", "groundup.json", "tokenizer.json"} <= set(made.outputs)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == made.facts["base"]
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) < 0.5 * made.facts["parameters"]


def test_every_command_loads_adapters_with_their_base(adapter: Path, pairs: Path, tmp_path: Path) -> None:
    """If a run is given, the adapters are the newest model of the run."""
    assert resolve_model(adapter.parent) == adapter
    opened = open_model(adapter, device="cpu")
    adapted = with_adapter(load_model(adapter.parent / "base"), adapter)
    ids = torch.arange(60)[None]
    torch.testing.assert_close(opened.model(ids), adapted(ids), atol=1e-4, rtol=0)
    assert (opened.model(ids) - load_model(adapter.parent / "base")(ids)).abs().max() > 0.1
    assert opened.tokenizer.chat_template is not None
    assert len(opened.stop_ids) == 2

    def stage(name: str, **keys: Any) -> Any:
        return STAGES[name].module.run(load(STAGES[name].config, keys), console=QUIET)

    assert stage("generate", model=str(adapter), prompt="The", max_tokens=5, temperature=0.0).token_ids
    exported = stage("export.gguf", model=str(adapter), out=str(tmp_path / "tuned.gguf"), type="f32")
    assert (tmp_path / "tuned.gguf").stat().st_size > 0
    assert exported.facts["files"]["f32"]["verification"]["equal_bit_for_bit"]
    report = stage("evaluate", model=str(adapter), data=str(pairs), out=str(tmp_path / "report"))
    assert report.facts["summary"]
    facts = model_show.run(model_show.ModelShowConfig(model=str(adapter)))
    assert facts["adapter_of"] == str((adapter.parent / "base").resolve())
    assert facts["tokenizer"]["chat_template"]


def test_a_moved_run_still_works(moved: Path, adapter: Path) -> None:
    ids = torch.arange(60)[None]
    assert torch.equal(load_model(moved)(ids), load_model(adapter)(ids))


def test_a_missing_or_different_base_model_is_named(moved: Path) -> None:
    """Other tools load adapters on any model of the same shape, which then generates nonsense."""
    weights = moved.parent / "base" / "model.safetensors"
    tensors = load_bytes(weights.read_bytes())  # read into memory, because the memory-mapped file is overwritten
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 0.01}, weights, metadata={"format": "pt"})
    with pytest.raises(FormatError, match=r"not the base model of .*: the adapter was trained on other weights"):
        load_model(moved)
    shutil.rmtree(moved.parent / "base")
    with pytest.raises(DataError, match="its base model gone does not exist") as refused:
        open_model(moved)
    assert "--base DIR" in refused.value.fix


def test_a_base_model_at_another_path_can_be_given(moved: Path, adapter: Path, pairs: Path, tmp_path: Path) -> None:
    """The base model may have been moved or downloaded again, so it is identified by its weights."""
    elsewhere = tmp_path / "disk" / "model"
    shutil.move(moved.parent / "base", elsewhere)
    ids = torch.arange(60)[None]
    merge.run(merge.MergeConfig(adapter=moved, out=tmp_path / "merged", base=elsewhere), console=QUIET)
    assert torch.equal(load_model(tmp_path / "merged")(ids), load_model(adapter)(ids))

    def stage(name: str, **keys: Any) -> Any:
        return STAGES[name].module.run(load(STAGES[name].config, keys), console=QUIET)

    asked: dict[str, Any] = {"prompt": "The", "max_tokens": 8, "temperature": 0.0}
    written = stage("generate", model=str(moved), base=str(elsewhere), **asked)
    assert written.token_ids == stage("generate", model=str(adapter), **asked).token_ids
    out = tmp_path / "compared"
    stage("compare", base=str(elsewhere), fine_tuned=str(moved), data=str(pairs), metric="likelihood", out=str(out))
    assert (out / "compare.md").is_file()
    with pytest.raises(FormatError, match=r"merged: not the base model of"):
        stage("generate", model=str(moved), base=str(tmp_path / "merged"), **asked)


def test_adapters_cannot_be_imported(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="groundup merge"):
        import_model.run(import_model.ImportConfig(path=str(adapter), out=tmp_path / "out"), console=QUIET)


def test_adapters_are_compared_with_their_base_and_other_adapters(
    adapter: Path, directory: Path, pairs: Path, tmp_path: Path
) -> None:
    """A merged model keeps the record of its training, so the same test set is used."""
    other = tmp_path / "other"
    instruct(pairs, directory / "base", other, num_epochs=0.5)

    def verdicts(before: Path, after: Path) -> dict[str, dict[str, Any]]:
        out = tmp_path / f"{before.name}-{after.name}"
        keys = {"base": str(before), "fine_tuned": str(after), "data": str(pairs), "out": str(out), "metric": "f1"}
        compare.run(load(compare.CompareConfig, keys), console=QUIET)
        return {line["name"]: line for line in json.loads((out / "compare.json").read_text())["lines"]}

    merged = tmp_path / "merged"
    merge.run(merge.MergeConfig(adapter=adapter, out=merged), console=QUIET)
    bits = "bits per byte of the answers"
    lines = [verdicts(before, after)[bits] for before in (directory / "base", other) for after in (adapter, merged)]
    values = [(line["before"]["value"], line["after"]["value"]) for line in lines]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert values[2] == pytest.approx(values[3], rel=1e-4)
    # The adapters may have two different values, because the number of few-shot examples that fit into the context
    # depends on the best prompt of the model that they are compared with.
    assert len({round(value, 3) for value in (*values[0], *values[2])}) >= 3, (
        "the base model, the other adapter and the adapter must differ"
    )


@pytest.mark.parametrize(
    "content",
    ["[]", '{"base": 3}', '{"base": {"path": 3}}', '{"base": {}, "labels": "ab"}', '{"base": {}, "format_version": 9}'],
)
def test_a_damaged_record_of_the_base_is_rejected(moved: Path, content: str) -> None:
    (moved / "groundup.json").write_text(content)
    with pytest.raises(FormatError, match=r"groundup\.json"):
        load_model(moved)


def test_adapters_that_name_themselves_as_base_are_rejected(moved: Path) -> None:
    (moved / "groundup.json").unlink()
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(moved)}))
    with pytest.raises(FormatError, match="the base models of these adapters form a cycle"):
        load_model(moved)


def test_a_merged_model_gives_the_same_answers(
    adapter: Path, directory: Path, tmp_path: Path, real_documents: list[str]
) -> None:
    """In other tools, a merged model gave different answers than the base model with adapters."""
    merged = tmp_path / "merged"
    made = merge.run(merge.MergeConfig(adapter=adapter, out=merged), console=QUIET)
    (tried,) = made.facts["verification"]["checks"]
    assert tried["max_difference"] < 1e-3 and tried["agreed"] == tried["positions"] > 1000
    adapted = with_adapter(load_model(directory / "base"), adapter)
    whole = open_model(merged, device="cpu")
    prompts = [" ".join(text.split()[:12]) for text in real_documents if len(text.split()) > 12][:50]
    assert len(prompts) == 50
    answers: list[list[str]] = []
    for model in (adapted, whole.model):
        with Engine(model, whole.tokenizer, stop_ids=whole.stop_ids) as engine:
            requests = [GenerationRequest(prompt=p, sampling=Sampling(temperature=0.0), max_tokens=16) for p in prompts]
            answers.append([engine.complete(request).text for request in requests])
    for prompt in prompts:
        ids = torch.tensor([whole.tokenizer.encode_prompt(prompt)[:100]])
        difference = (whole.model(ids) - adapted(ids)).abs().flatten()
        # In such a small model with a high learning rate, some vectors are close to 0 before a norm, which increases
        # rounding errors.
        assert difference.quantile(0.999) < 1e-4 and difference.max() < 1e-3
    assert answers[0] == answers[1]
    assert whole.tokenizer.chat_template is not None
    with pytest.raises(ConfigError, match="a full model"):
        merge.run(merge.MergeConfig(adapter=merged, out=tmp_path / "again"), console=QUIET)


def test_a_merge_that_changes_the_output_is_not_saved(adapter: Path, directory: Path, tmp_path: Path) -> None:
    """The merged weights overflow float16 but not float32."""
    large = Path(shutil.copytree(adapter, directory / "large"))
    factors = load_bytes(
        (large / "adapter_model.safetensors").read_bytes()
    )  # read into memory, because the memory-mapped file is overwritten
    beyond = {name: 1e6 * factor if "lora_B" in name else factor for name, factor in factors.items()}
    save_file(beyond, large / "adapter_model.safetensors")
    artifact.accept(large / "artifact.json")
    with pytest.raises(FormatError, match=r"halves in float16: merged: .*--dtype float32"):
        merge.run(merge.MergeConfig(adapter=large, out=tmp_path / "halves", dtype="float16"), console=QUIET)
    assert not (tmp_path / "halves").exists()
    ungated = merge.MergeConfig(adapter=large, out=tmp_path / "halves", dtype="float16", verify=False)
    assert "verification" not in merge.run(ungated, console=QUIET).facts
    shutil.rmtree(large)


def test_adapters_are_trained_on_adapters(adapter: Path, pairs: Path, directory: Path) -> None:
    second = directory / "second"
    instruct(pairs, adapter, second, num_epochs=1.0)
    ids = torch.arange(60)[None]
    stacked = load_model(second)
    torch.testing.assert_close(stacked(ids), with_adapter(load_model(adapter), second)(ids), atol=1e-4, rtol=0)
    assert (stacked(ids) - load_model(adapter)(ids)).abs().max() > 0.01
    whole = json.loads((second / "groundup.json").read_text())["base"]
    assert (whole["relative"], Path(whole["path"])) == ("../chat", adapter.resolve())
    shutil.rmtree(second)


def test_an_unknown_target_module_is_rejected_before_training(pairs: Path, directory: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean q_proj"):
        instruct(pairs, directory / "base", tmp_path / "out", lora={"target_modules": ["v_proj", "q_prj"]})
    with pytest.raises(ConfigError, match=r"unknown setting 'lora\.learning_rate'"):
        instruct(pairs, directory / "base", tmp_path / "out", lora={"learning_rate": 2e-4})
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_classifier_can_be_an_adapter_with_a_head(
    directory: Path, tmp_path: Path, real_documents: list[str], tokenizer: Tokenizer
) -> None:
    longest = sorted(real_documents, key=len)[-2:]
    rows = [(part, text.split()[0]) for text in longest for part in text.split("\n\n") if 60 < len(part) < 400]
    table = tmp_path / "paragraphs.jsonl"
    table.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    out = tmp_path / "classifier"
    keys = {"data": str(table), "model": str(directory / "base"), "out": str(out), "threads": 1, "num_epochs": 24.0}
    keys |= {"method": "lora", "batch_size": 8, "learning_rate": 0.005}
    made = finetune_classify.run(load(finetune_classify.FinetuneClassifyConfig, keys), console=QUIET)
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["score"])
    assert resolve_classifier(out) == out
    sample = next(sample for sample in made.facts["samples"] if len(sample["text"]) < 300)
    (found,) = classify.run(ClassifyConfig(model=out, texts=(sample["text"],)))
    assert found.label == sample["predicted"]
    assert found.probabilities[found.label] == pytest.approx(sample["probability"], abs=1e-5)

    merged = tmp_path / "merged"
    tried = merge.run(merge.MergeConfig(adapter=out, out=merged), console=QUIET).facts["verification"]
    assert tried["agreed"] == tried["texts"] > 200 and tried["max_difference"] < 1e-4
    (one, labels), (other, same) = load_classifier(out), load_classifier(merged)
    assert labels == same == tuple(made.facts["labels"])
    ids = torch.tensor([tokenizer.encode_prompt(sample["text"])])
    last = torch.tensor([ids.shape[1] - 1])
    torch.testing.assert_close(one(ids, last), other(ids, last), atol=1e-4, rtol=0)
    tensors = load_bytes(
        (out / "adapter_model.safetensors").read_bytes()
    )  # read into memory, because the memory-mapped file is overwritten
    beyond = {name: 1e6 * factor if "lora_B" in name else factor for name, factor in tensors.items()}
    save_file(beyond, out / "adapter_model.safetensors")
    artifact.accept(out / "artifact.json")
    with pytest.raises(FormatError, match=r"halves in float16: .*--dtype float32"):
        merge.run(merge.MergeConfig(adapter=out, out=tmp_path / "halves", dtype="float16"), console=QUIET)
    assert not (tmp_path / "halves").exists()
    del tensors["base_model.model.score.weight"]
    save_file(tensors, out / "adapter_model.safetensors")
    artifact.accept(out / "artifact.json")
    with pytest.raises(FormatError, match="head has 0 rows"):
        load_classifier(out)


def test_method_merged_saves_the_merged_model(
    directory: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training is the same as with `lora`, but transformers can load the result without the base model and PEFT."""
    # On a busy machine, two measurements may select different dtypes, which would change the training.
    machine = Machine("cpu", "float32", compile=False, threads=1, matmul_flops=1e11)
    monkeypatch.setattr("groundup.kernels.measure_machine", lambda **_: machine)
    adapter = tmp_path / "adapter"
    instruct(pairs, directory / "base", adapter)
    made = instruct(pairs, directory / "base", tmp_path / "merged", method="merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert "base" not in made.facts
    ids = torch.arange(60)[None]
    torch.testing.assert_close(load_model(tmp_path / "merged")(ids), load_model(adapter)(ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("asked", "dim", "settled"),
    [(None, 64, "full"), (None, 512, "merged"), ("full", 512, "full"), ("lora", 64, "lora")],
)
def test_large_models_get_adapters_by_default(
    asked: fine_tuning_method.Method | None, dim: int, settled: str, tiny_model: Callable[..., Transformer]
) -> None:
    """Training all weights of a large model with Muon takes minutes for small batches; training adapters takes one."""
    with torch.device("meta"):
        model = tiny_model(65_536, dim=dim)
    assert fine_tuning_method.resolve_method(asked, model.config, fine_tuning_method.LoraConfig(), QUIET) == settled


@pytest.mark.parametrize(("method", "quantize"), [("lora", "int8"), ("merged", "int4")])
def test_adapters_on_quantized_layers_merge_into_dense_weights(
    pairs: Path, directory: Path, tmp_path: Path, method: str, quantize: str
) -> None:
    """All layers of the merged model have dense weights with the standard names, including layers without adapters."""
    lora = {"rank": 8, "quantize": quantize, "target_modules": ["q_proj", "up_proj"]}
    made = instruct(pairs, directory / "base", tmp_path / "out", method=method, lora=lora)
    assert made.facts["held_out"]["fine_tuned"]["loss"] < made.facts["held_out"]["base"]["loss"]
    fine_tuned, base = load_model(tmp_path / "out"), load_model(directory / "base")
    assert fine_tuned.state_dict().keys() == base.state_dict().keys()
