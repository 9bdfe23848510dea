"""Several adapters share one base model. Each adapter has its own name, and the base weights are loaded once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from groundup.commands.serve import ServeConfig, run
from groundup.core.config import load
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, FormatError
from groundup.hub import load_model, save_model
from groundup.hub.adapted import save_adapted
from groundup.hub.loading import open_adapter, open_model
from groundup.inference import Engine, GenerationRequest, Sampling
from groundup.model import SequenceClassifier, Transformer
from groundup.model.lora import LoRA, add_lora, lora_layers
from groundup.tokenizer import Tokenizer

PROMPT = "The with statement is used to wrap"


def adapter_of(base: Path, directory: Path, seed: int) -> Path:
    """Return the directory of an adapter whose outputs clearly differ from the outputs of the base model."""
    model = load_model(base)
    add_lora(model, LoRA(rank=4), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        layer.lora_B.data.normal_(0, 0.3, generator=generator)
    save_adapted(directory, model, base)
    return directory


@pytest.fixture(scope="module")
def adapters(chat_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    run = tmp_path_factory.mktemp("adapters")
    return adapter_of(chat_directory, run / "law", 1), adapter_of(chat_directory, run / "bank", 2)


def alone(directory: Path) -> str:
    """Return the output of the merged model."""
    opened = open_model(directory, device="cpu")
    with Engine(opened.model, opened.tokenizer, stop_ids=opened.stop_ids) as engine:
        return engine.complete(GenerationRequest(prompt=PROMPT, sampling=Sampling(temperature=0), max_tokens=24)).text


def test_each_adapter_has_its_own_name(chat_directory: Path, adapters: tuple[Path, Path], serving: Any) -> None:
    law, bank = adapters
    with serving(chat_directory, adapter=[f"law={law}", str(bank)]) as (_, url):
        client = openai.OpenAI(
            base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=openai.DefaultHttpxClient(trust_env=False)
        )
        listed = {model.id: model for model in client.models.list()}
        assert list(listed) == ["chat", "law", "bank"]
        assert all(model.model_extra["has_chat_template"] for model in listed.values() if model.model_extra)
        written = {
            name: client.completions.create(model=name, prompt=PROMPT, temperature=0, max_tokens=24) for name in listed
        }
        assert all(answer.model == name for name, answer in written.items())
        texts = {name: answer.choices[0].text for name, answer in written.items()}
        assert texts == {"chat": alone(chat_directory), "law": alone(law), "bank": alone(bank)}
        assert len(set(texts.values())) == 3
        asked: Any = [{"role": "user", "content": "Hi"}]
        assert client.chat.completions.create(model="bank", messages=asked, max_tokens=2).model == "bank"
        assert client.models.retrieve("law").id == "law"
        with pytest.raises(openai.NotFoundError, match=r"'tax'.*'chat', 'law', 'bank'") as refused:
            client.completions.create(model="tax", prompt=PROMPT)
        assert refused.value.code == "model_not_found"


def test_streams_of_several_models_do_not_mix(chat_directory: Path, adapters: tuple[Path, Path], serving: Any) -> None:
    """One thread runs all models in turn. A client must not receive tokens of another client's model."""
    names = ["chat", "law", "bank"] * 2
    with (
        serving(chat_directory, adapter=[f"law={adapters[0]}", f"bank={adapters[1]}"]) as (_, url),
        httpx.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        call = {"prompt": PROMPT, "temperature": 0, "max_tokens": 24, "stream": True}
        open_streams = [
            http.send(http.build_request("POST", "/v1/completions", json=call | {"model": name}), stream=True)
            for name in names
        ]
        texts = []
        for stream in open_streams:
            lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line][:-1]
            texts.append("".join(json.loads(line)["choices"][0]["text"] for line in lines))
            stream.close()
    expected = {"chat": alone(chat_directory), "law": alone(adapters[0]), "bank": alone(adapters[1])}
    assert texts == [expected[name] for name in names]


def test_base_weights_are_in_memory_once(chat_directory: Path, adapters: tuple[Path, Path]) -> None:
    """If each of ten adapters loaded a copy of the base model, the server would need ten times as much memory."""
    base = open_model(chat_directory, device="cpu")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    for path in adapters:
        adapted = open_adapter(base, path)
        theirs = adapted.model.state_dict()
        own = {name for name in theirs if "lora_" in name}
        assert set(theirs) - own == set(before)
        for name, tensor in base.model.state_dict().items():
            assert theirs[name].untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
        assert sum(theirs[name].numel() for name in own) < 0.2 * sum(tensor.numel() for tensor in before.values())
    assert not lora_layers(base.model)
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.fixture
def another(tiny_model: Callable[..., Transformer], tokenizer: Tokenizer, chat_directory: Path, tmp_path: Path) -> Path:
    """Return a model with the same architecture and tokenizer but with other weights."""
    model = load_model(chat_directory)
    model.lm_head.weight.data += 0.01
    save_model(tmp_path / "another", model, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id)
    tokenizer.save(tmp_path / "another")
    return tmp_path / "another"


def test_adapters_that_do_not_match_are_errors(
    chat_directory: Path, adapters: tuple[Path, Path], another: Path, tmp_path: Path
) -> None:
    """On another base model of the same shape, an adapter would generate nonsense without causing an error."""
    foreign = adapter_of(another, tmp_path / "foreign", 3)
    labelling = SequenceClassifier.from_language_model(load_model(chat_directory), 2, seed=0)
    add_lora(labelling, LoRA(rank=2))
    save_adapted(tmp_path / "labels", labelling, chat_directory, labels=["a", "b"])
    same = adapter_of(chat_directory, tmp_path / "elsewhere" / "law", 4)

    def serve(*given: str) -> None:
        run(load(ServeConfig, {"models": [str(chat_directory)], "port": 0, "adapter": list(given)}), console=Console())

    with pytest.raises(FormatError, match=r"another: not the base model|chat: not the base model of .*foreign"):
        serve(f"foreign={foreign}")
    with pytest.raises(ConfigError, match="two models have the name 'law'") as refused:
        serve(str(adapters[0]), str(same))
    assert "--adapter NAME=DIR" in refused.value.fix
    with pytest.raises(ConfigError, match="two models have the name 'chat'"):
        serve(f"chat={adapters[0]}")
    with pytest.raises(ConfigError, match="a full model"):
        serve(f"whole={another}")
    with pytest.raises(DataError, match="no language model"):
        serve(f"labels={tmp_path / 'labels'}")
    with pytest.raises(ConfigError, match="must be NAME=DIR"):
        serve("law=")
    with pytest.raises(DataError, match="no such directory"):
        serve(f"gone={tmp_path / 'gone'}")
