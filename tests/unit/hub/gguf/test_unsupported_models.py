"""Unsupported models are rejected by name, and no partial file remains."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter

from groundup.core.errors import FormatError, GroundupError, ResourceError
from groundup.hub.gguf import GgufModel, write_gguf
from groundup.model import ModelConfig
from groundup.model.config import RopeScaling

State = dict[str, torch.Tensor]
Configs = dict[str, ModelConfig]
Maker = Callable[[ModelConfig], State]
NO_TOKENIZER = {"tokenizer.ggml.model": "no_vocab"}
SIZES = {
    "block_count": 1,
    "embedding_length": 32,
    "attention.head_count": 2,
    "feed_forward_length": 48,
    "context_length": 64,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
SHAPES = {
    "token_embd.weight": (40, 32),
    "output_norm.weight": (32,),
    **{f"blk.0.{name}.weight": (32,) for name in ("attn_norm", "ffn_norm")},
    **{f"blk.0.attn_{name}.weight": (32, 32) for name in ("q", "k", "v", "output")},
    **{f"blk.0.ffn_{name}.weight": (48, 32) for name in ("gate", "up")},
    "blk.0.ffn_down.weight": (32, 48),
}


def foreign(path: Path, architecture: str, keys: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write a file with the gguf library: an architecture, keys, and weights."""
    writer = GGUFWriter(path, architecture)
    for key, value in keys.items():
        add: Callable[[str, Any], None] = {
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
        }.get(type(value), writer.add_array)
        add(f"{architecture}.{key}", value)
    for name, shape in shapes.items():
        writer.add_tensor(name, np.full(shape, len(shape), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_unmodified_file_is_read(tmp_path: Path) -> None:
    model = GgufModel(foreign(tmp_path / "m.gguf", "llama", SIZES, SHAPES))
    assert model.config.n_kv_heads == 2 and model.config.head_dim == 16 and model.config.tie_embeddings
    divisors_of_one = SHAPES | {"rope_freqs.weight": (8,)}  # As converters once wrote them for Llama 2.
    assert GgufModel(foreign(tmp_path / "n.gguf", "llama", SIZES, divisors_of_one)).config == model.config
    assert model.config.norm_eps == 1e-5  # Not 9.99999974e-06, its fp32 value.


VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...] | None], str]] = {
    "architecture": ("mamba", {}, {}, "general.architecture = 'mamba'"),
    "experts": ("llama", {"expert_count": 8}, {}, "llama.expert_count"),
    "scaling": ("llama", {"rope.scaling.type": "longrope", "rope.scaling.factor": 2.0}, {}, "longrope"),
    "partly-rotated": ("llama", {"rope.dimension_count": 8}, {}, "rope.dimension_count = 8"),
    "per-layer-heads": ("llama", {"attention.head_count": [2, 4]}, {}, "llama.attention.head_count"),
    "no-size": ("llama", {"embedding_length": "32"}, {}, "llama.embedding_length"),
    "fraction": ("llama", {"embedding_length": 32.5}, {}, "llama.embedding_length"),
    "layers": ("llama", {"block_count": 2**32 - 1}, {}, "llama.block_count"),
    "layers-of-gemma": ("gemma3", {"block_count": 2**32 - 1, "attention.sliding_window": 8}, {}, "gemma3.block_count"),
    "heads-of-4-gb": (
        "llama",
        {"attention.key_length": 2**31 - 2, "attention.value_length": 2**31 - 2},
        {},
        "head_dim = 2147483646",
    ),
    "wide-heads": (
        "llama",
        {"attention.key_length": 4096, "attention.value_length": 4096},
        {},
        "blk.0.attn_output.weight",
    ),
    "rotated-4-gb": (
        "llama",
        {"attention.key_length": 2**31 - 2, "attention.value_length": 2**31 - 2},
        {"rope_freqs.weight": (2, 2)},
        "rope_freqs.weight",
    ),
    "no-heads": ("llama", {"attention.head_count": 0}, {}, "n_heads = 0"),
    "not-a-number": ("llama", {"rope.freq_base": float("nan")}, {}, "rope_theta = nan"),
    "missing": ("llama", {}, {"blk.0.ffn_up.weight": None}, "no tensor 'blk.0.ffn_up.weight'"),
    "left-over": ("llama", {}, {"blk.0.attn_q_norm.weight": (16,)}, "blk.0.attn_q_norm.weight"),
    "shape": ("llama", {}, {"blk.0.ffn_up.weight": (47, 32)}, "blk.0.ffn_up.weight"),
    "divisors": ("llama", {}, {"rope_freqs.weight": (4, 4)}, "rope_freqs.weight"),
}


@pytest.mark.parametrize("case", VARIANTS)
def test_unsupported_variants_are_named(tmp_path: Path, case: str) -> None:
    architecture, keys, shapes, named = VARIANTS[case]
    kept = {name: shape for name, shape in (SHAPES | shapes).items() if shape is not None}
    path = foreign(tmp_path / "m.gguf", architecture, SIZES | keys, kept)
    with pytest.raises(FormatError) as caught:
        GgufModel(path)
    assert named in caught.value.value
    assert str(path) in caught.value.value


UNSAID: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3-of-qwen": ("qwen3", {"rope_scaling": RopeScaling("llama3", 8.0, original_context_length=32)}),
    "betas": ("llama", {"rope_scaling": RopeScaling("yarn", 8.0, original_context_length=32, beta_fast=16.0)}),
    "biases-of-qwen3": ("qwen3", {"attention_bias": True}),
    "scale-of-gemma": ("gemma3", {"query_scalar": 100.0}),
    "pattern-of-gemma2": ("gemma2", {"sliding_layers": (False, True)}),
    "gemma2-without-softcap": ("gemma2", {"attention_softcap": None}),
    "untied-gemma2": ("gemma2", {"tie_embeddings": False}),
    "tied-olmo2": ("olmo2", {"tie_embeddings": True}),
    "heads-of-olmo2": ("olmo2", {"head_dim": 32}),
    "heads-of-phi3": ("phi3", {"head_dim": 32}),
    "positions-of-smollm3": ("smollm3", {"rotary_layers": None}),
}


@pytest.mark.parametrize("case", UNSAID)
def test_models_that_llama_cpp_does_not_support_are_not_written(
    tmp_path: Path, configs: Configs, random_state: Maker, case: str
) -> None:
    """llama.cpp would load such a file, and compute something else."""
    family, variant = UNSAID[case]
    config = replace(configs[family], **variant)
    with pytest.raises(FormatError, match=r"llama\.cpp"):
        write_gguf(tmp_path / "m.gguf", config, random_state(config), NO_TOKENIZER)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["nan", "too-large", "missing", "misshapen", "no-space", "interrupted"])
def test_a_failure_leaves_only_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configs: Configs, random_state: Maker, case: str
) -> None:
    (tmp_path / "m.gguf").write_text("what was there")
    llama = configs["llama"]
    state = random_state(llama)
    advance: Callable[[float], object] = lambda _: None  # noqa: E731
    expected: type[BaseException] = FormatError
    last = "model.layers.1.mlp.down_proj.weight"
    if case == "nan":
        state[last][3, 3] = torch.nan
    elif case == "too-large":
        state[last][3, 3] = 70_000.0
    elif case == "missing":
        del state[last]
    elif case == "misshapen":
        state[last] = torch.ones(64, 95)
    elif case == "no-space":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        expected = ResourceError
    else:
        expected = KeyboardInterrupt

        def advance(_: float) -> None:
            raise KeyboardInterrupt

    with pytest.raises(expected) as caught:
        write_gguf(tmp_path / "m.gguf", llama, state, NO_TOKENIZER, "f16", advance=advance)
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_text() == "what was there"
    if case in ("nan", "too-large"):
        assert "blk.1.ffn_down.weight" in str(caught.value)
    assert not isinstance(caught.value, GroundupError) or caught.value.fix


class OnDemand(Mapping[str, torch.Tensor]):
    """Lazy weights that count how many tensors are alive."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._alive: list[weakref.ref[torch.Tensor]] = []
        self.most = 0

    def __getitem__(self, name: str) -> torch.Tensor:
        made = self._state[name].clone()
        self._alive = [*(each for each in self._alive if each() is not None), weakref.ref(made)]
        self.most = max(self.most, len(self._alive))
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path, configs: Configs, random_state: Maker, family: str) -> None:
    """A 70B model is exported with memory for one layer; GPT-2's fused projection needs three tensors."""
    config = replace(configs[family], n_layers=6)
    state = OnDemand(random_state(config))
    seen: list[float] = []
    written = write_gguf(tmp_path / "m.gguf", config, state, NO_TOKENIZER, "q8_0", advance=seen.append)
    assert state.most <= (4 if family == "gpt2" else 2)
    assert 0.9 * written.n_bytes < sum(seen) <= written.n_bytes
