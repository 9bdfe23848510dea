"""The planner: counts match the model that is built, and plans fit their budget."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from family_shapes import small
from groundup.core.errors import ConfigError, ResourceError
from groundup.model import FAMILIES, ModelConfig, Transformer
from groundup.model.flops import (
    attended_tokens,
    cache_bytes,
    flops_per_token,
    fused_training_bytes,
    inference_bytes,
    inference_flops_per_token,
    matmul_parameters,
    parameter_count,
    training_bytes,
    weight_bytes,
)
from groundup.model.lora import LoRA, adapter_parameters, add_lora
from groundup.model.operations import DEFAULT_OPERATIONS
from groundup.model.presets import PRESETS
from groundup.optim import OptimizerConfig
from groundup.train.planner import Budget, Forecast, Plan, plan_run, shape_for_depth
from groundup.train.planner.forecast import distillation_runs
from groundup.train.planner.plan import regularized

GPT2_SMALL = ModelConfig("gpt2", 768, 12, 12, 12, 64, 3072, 50_257, 1024)


def test_gpt2_small_has_its_published_number_of_parameters() -> None:
    assert parameter_count(GPT2_SMALL) == 124_439_808


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_counts_match_the_built_model(family: str, tied: bool) -> None:
    config = small(family, tie_embeddings=tied)
    with torch.device("meta"):
        model = Transformer(config)
    assert parameter_count(config) == sum(p.numel() for p in model.parameters())
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n)
    assert matmul_parameters(config) == matrices + config.vocab_size * config.dim


def _plan(budget: Budget, speed: float = 250e9, corpus: int = 8_000_000, **shape: object) -> Plan:
    return plan_run(
        budget,
        vocab_size=8192,
        given_shape={"family": "qwen3", "context_length": 512} | shape,
        forecast=Forecast(corpus),
        matmul_flops=2 * speed,
        measure=lambda config, rows: speed / flops_per_token(config),
        optimizer=OptimizerConfig(),
    )


@pytest.mark.parametrize("minutes", [0.5, 5.0, 60.0])
def test_minutes_are_kept_at_the_measured_speed(minutes: float) -> None:
    plan = _plan(Budget(minutes=minutes), corpus=10**9)
    assert plan.tokens_per_second is not None
    assert 0.8 * minutes < plan.total_tokens / plan.tokens_per_second / 60 <= 1.01 * minutes


def test_the_next_larger_model_is_measured_too() -> None:
    """A small model uses the machine less well, so its speed says too little about that of a larger one."""
    measured: list[int] = []

    def measure(config: ModelConfig, rows: int) -> float:
        measured.append(config.n_layers)
        return 2e11 * config.n_layers / flops_per_token(config)

    forecast = Forecast(8_000_000)
    shape = {"family": "qwen3", "context_length": 512}
    sizes = {"vocab_size": 8192, "given_shape": shape, "forecast": forecast, "optimizer": OptimizerConfig()}
    plan = plan_run(Budget(minutes=20), matmul_flops=1e12, measure=measure, **sizes)  # type: ignore[arg-type]
    first, second = measured
    assert second == first + 1 == plan.model.n_layers
    assert plan.tokens_per_second == 2e11 * second / flops_per_token(plan.model)


def test_more_time_gives_a_deeper_model_and_larger_batches() -> None:
    short, long = _plan(Budget(minutes=2)), _plan(Budget(minutes=2000), corpus=10**11)
    assert short.model.n_layers < long.model.n_layers
    assert short.global_batch_tokens < long.global_batch_tokens


def test_epochs_are_limited_by_the_user_or_by_the_law() -> None:
    """The planner stopped after four epochs, so that a minute and an hour gave the same model of a small text."""
    by_law = _plan(Budget(minutes=60), corpus=100_000)
    assert 4.1 < by_law.epochs < 100
    assert by_law.max_epochs == pytest.approx(by_law.epochs, rel=0.01)
    assert 11.8 < _plan(Budget(minutes=60, max_epochs=12), corpus=100_000).epochs < 12.2


def test_teachers_are_planned_within_the_time() -> None:
    alone, taught = (_plan(Budget(minutes=16, num_teachers=n), corpus=200_000) for n in (0, None))
    assert taught.num_teachers == 2 and taught.model == alone.model
    assert 0.85 * alone.total_tokens < taught.total_tokens <= alone.total_tokens
    speed = taught.tokens_per_second
    assert speed and taught.total_tokens * distillation_runs(2) / speed <= 16 * 60
    assert _plan(Budget(minutes=60, num_teachers=None), corpus=100_000).num_teachers == 4
    assert _plan(Budget(minutes=2, num_teachers=None), corpus=200_000).num_teachers == 0
    assert _plan(Budget(minutes=60, num_teachers=None), corpus=10**9).num_teachers == 0


def test_repeated_text_does_not_increase_the_batch_size() -> None:
    """With twice this batch size, 15 epochs of 0.4 and of 1 MB of text ended 0.018 bits per byte higher."""
    once, repeated = _plan(Budget(tokens=8_000_000)), _plan(Budget(tokens=8_000_000), corpus=400_000)
    assert (once.global_batch_tokens, repeated.global_batch_tokens) == (8_192, 4_096)


def test_the_given_batch_size_is_kept_in_full_rows() -> None:
    """Steps of 12,000 tokens are 23 rows of 512, a prime number that larger micro-batches do not divide."""
    plan = _plan(Budget(tokens=4_000_000, global_batch_tokens=12_000))
    assert plan.rows == 23
    assert plan.micro_batch_size <= 16
    assert _plan(Budget(minutes=2, global_batch_tokens=40_960)).global_batch_tokens == 40_960
    assert _plan(Budget(tokens=4_000_000, global_batch_tokens=100)).global_batch_tokens == 512


def test_given_regularization_replaces_the_planned_one() -> None:
    plan = _plan(Budget(tokens=4_000_000), corpus=300_000)
    planned = regularized(plan)
    assert planned.token_dropout and planned.optimizer.embedding_weight_decay  # 13 epochs
    assert planned.dropout == 0
    given = regularized(plan, weight_decay=0.0, dropout=0.1, token_dropout=0.0)
    assert (given.dropout, given.token_dropout, given.optimizer.weight_decay) == (0.1, 0, 0)


def test_token_dropout_is_planned_for_models_that_would_overfit() -> None:
    """On 5 MB of text, token dropout made ten epochs of a small model worse; on 0.4 to 1 MB it helped very much."""
    small = regularized(_plan(Budget(tokens=14_000_000), corpus=1_400_000, n_layers=2))
    large = regularized(_plan(Budget(tokens=14_000_000), corpus=1_400_000, n_layers=6))
    assert small.epochs > 9 and small.token_dropout < 0.05 < 0.14 < large.token_dropout
    assert regularized(_plan(Budget(tokens=14_000_000), corpus=7_000_000, n_layers=8)).token_dropout == 0


def test_the_schedule_has_the_given_fractions_of_steps() -> None:
    plan = replace(_plan(Budget(tokens=500_000)), total_steps=130).with_schedule(0.02, 0.6)
    assert (plan.schedule.total_steps, plan.warmup_steps, plan.decay_steps) == (130, 3, 78)
    assert plan.with_schedule(0.0, 0.0).schedule(129) == 1.0


def test_given_fields_are_kept() -> None:
    plan = _plan(Budget(tokens=500_000), n_layers=3, dim=96, n_heads=4, n_kv_heads=2, tie_embeddings=True)
    model = plan.model
    assert (model.n_layers, model.dim, model.n_heads, model.n_kv_heads) == (3, 96, 4, 2)
    assert model.head_dim == 24
    assert model.tie_embeddings


def test_a_plan_survives_json() -> None:
    plan = _plan(Budget(depth=3))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest


def test_minutes_spent_before_step_1_leave_time_for_a_small_model() -> None:
    """After a slow first compilation no tokens were left, for which 64 layers of 4,096 were planned."""
    plan = plan_run(
        Budget(minutes=0.05, seconds_spent=60),
        vocab_size=8192,
        given_shape={"family": "qwen3", "context_length": 512},
        forecast=Forecast(8_000_000),
        matmul_flops=500e9,
        measure=lambda config, rows: 250e9 / flops_per_token(config),
        optimizer=OptimizerConfig(),
    )
    assert plan.model.n_layers == 2
    assert plan.total_tokens > 0


def test_the_model_size_fits_the_corpus() -> None:
    """Ten layers were once planned for a billion tokens, and then trained for four epochs of 300,000."""
    limited = _plan(Budget(tokens=10**9, max_epochs=4), corpus=300_000)
    assert limited.model.n_layers <= 3
    assert limited.epochs < 4.1


def test_few_tokens_are_not_rounded_up() -> None:
    assert _plan(Budget(tokens=1000)).total_tokens <= 1024


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "given",
    [{"n_kv_heads": 2}, {"n_heads": 6}, {"n_heads": 5, "n_kv_heads": 5}, {"dim": 99}, {"n_layers": 5}, {"head_dim": 8}],
    ids=str,
)
def test_derived_fields_fit_given_ones(family: str, given: dict[str, int]) -> None:
    """The search for a depth once built invalid shapes, and reported them as the user's error."""
    if FAMILIES[family].multi_head_only and "head_dim" in given:
        given = given | {"dim": 64, "n_heads": 8}
    if FAMILIES[family].multi_head_only and FAMILIES[family].positions == "rotary" and "dim" in given:
        given = given | {"dim": given["dim"] // 2 * 2}  # heads have even dimensions
    model = _plan(Budget(tokens=2000), family=family, **given).model
    assert {name: getattr(model, name) for name in given} == given


def test_a_depth_and_another_number_of_layers_are_rejected() -> None:
    with pytest.raises(ConfigError, match=r"shape\.n_layers"):
        _plan(Budget(depth=8), n_layers=3)


def test_the_memory_limit_is_kept() -> None:
    def plan(memory: int, **shape: int) -> Plan:
        return plan_run(
            Budget(tokens=10**10),
            vocab_size=8192,
            given_shape={"family": "qwen3", "context_length": 512} | shape,
            forecast=Forecast(10**10),
            matmul_flops=1e12,
            measure=lambda config, rows: 1.0,
            optimizer=OptimizerConfig(),
            memory_bytes=memory,
        )

    roomy, tight = plan(10**12), plan(10**9)
    assert tight.model.n_layers < roomy.model.n_layers
    assert training_bytes(tight.model, tight.micro_batch_size) <= 10**9
    with pytest.raises(ResourceError, match="GB"):
        plan(10**9, dim=100_000)


WINDOWS = {"sliding_window": 8, "sliding_layers": (True, False, True)}
VARIANTS: dict[str, dict[str, object]] = {
    "gpt2": {"family": "gpt2", "n_kv_heads": 4},
    "llama": {"family": "llama", "n_kv_heads": 2, "attention_bias": True, "mlp_bias": True},
    "mistral": {"family": "mistral", "n_kv_heads": 2, "sliding_window": 8},
    "qwen2": {"family": "qwen2", "n_kv_heads": 2},
    "gemma3": {"family": "gemma3", "n_kv_heads": 1, "local_rope_theta": 1e4, **WINDOWS},
    "gpt_neox": {"family": "gpt_neox", "n_kv_heads": 4, "rotary_fraction": 0.25},
    "olmo2": {"family": "olmo2", "n_kv_heads": 2},
    "gemma2": {"family": "gemma2", "n_kv_heads": 2, "attention_softcap": 50.0, "logit_softcap": 30.0, **WINDOWS},
}


def variant(name: str) -> ModelConfig:
    shape = {"dim": 64, "n_layers": 3, "n_heads": 4, "head_dim": 16, "ffn_dim": 160, "vocab_size": 512}
    return ModelConfig(**shape | {"context_length": 32} | VARIANTS[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VARIANTS)
def test_flops_match_those_counted_by_torch(name: str) -> None:
    """torch counts all computed matmuls, including masked positions."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config, length = variant(name), 32
    model = Transformer(config).eval()
    # torch counts attention only in its unfused form.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, length, dtype=torch.long))
    all_pairs = 4 * config.n_layers * config.n_heads * config.head_dim * length
    assert counter.get_total_flops() == length * (2 * matmul_parameters(config) + all_pairs)
    assert inference_flops_per_token(config, length) < 2 * matmul_parameters(config) + all_pairs
    assert flops_per_token(config) == 3 * inference_flops_per_token(config, length)


@pytest.mark.parametrize("name", VARIANTS)
def test_frozen_weights_need_two_thirds_of_the_compute(name: str) -> None:
    """If all weights were counted as trained, MFU would be half as large again."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config, length = variant(name), 32
    model = Transformer(config)
    add_lora(model, LoRA(rank=4))
    lora_parameters = adapter_parameters(model)
    assert lora_parameters is not None and adapter_parameters(Transformer(config)) is None
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, length, dtype=torch.long)).sum().backward()
    half = 3 * round(
        4 * config.n_heads * config.head_dim * attended_tokens(config, length)
    )  # attention, by the formula
    pairs = 3 * 4 * config.n_layers * config.n_heads * config.head_dim * length
    attended = length * flops_per_token(config, lora_parameters=lora_parameters)
    by_formula = attended + length * (pairs - half)  # all pairs, because explicit attention skips few masked ones
    # No parameter before the first layer is trained, so the gradient of its input is not computed. If both branches
    # read the input of that layer, this holds for the MLP, too.
    least = 0.9 if config.block == "parallel" else 0.93
    assert least * attended < counter.get_total_flops() <= by_formula
    assert flops_per_token(config, lora_parameters=lora_parameters) < flops_per_token(config)
    assert training_bytes(config, 1, lora_parameters=lora_parameters) < training_bytes(config, 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_flops_depend_on_the_attention_mask_of_each_layer(name: str) -> None:
    config, length = variant(name), 32
    positions = torch.arange(length)[None]
    causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    seen = 0.0
    for layer in range(config.n_layers):
        mask = DEFAULT_OPERATIONS.attention_mask(
            positions, None, config.sliding_window if config.slides(layer) else None
        )
        seen += float((causal if mask is None else mask).sum()) / length
    # The formula omits half of the attention of a token to itself, as the papers do.
    assert 0 < seen - attended_tokens(config, length) <= config.n_layers / 2


def test_a_sliding_window_saves_compute_only_in_long_contexts() -> None:
    narrow, wide = PRESETS["mistral-7b-v0.1"].config, PRESETS["mistral-7b-v0.3"].config
    assert attended_tokens(narrow, 4096) == attended_tokens(wide, 4096)
    assert attended_tokens(narrow, 32_768) < 0.25 * attended_tokens(wide, 32_768)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_inference_memory_matches_the_real_tensors(name: str, dtype: str) -> None:
    config = variant(name)
    with torch.device("meta"):
        model = Transformer(config).to(getattr(torch, dtype))
    tensors = {id(p): p for p in model.parameters()}.values()
    assert weight_bytes(config, dtype) == sum(t.numel() * t.element_size() for t in tensors)
    cache = model.new_cache(1, 20)
    cache.reserve(20)
    assert cache_bytes(config, 20, dtype) == cache.nbytes == 20 * model.cache_bytes_per_token
    assert inference_bytes(config, 20, dtype) == weight_bytes(config, dtype) + cache_bytes(config, 20, dtype)


@pytest.mark.parametrize(
    ("depth", "rows", "vocabulary", "accumulated", "measured"),
    [
        *[(2, 16, 1344, False, 530e6), (4, 8, 1344, False, 631e6), (4, 16, 1344, False, 813e6)],
        *[(5, 4, 2880, False, 661e6), (8, 16, 2880, False, 2113e6)],
        *[(2, 8, 7232, False, 640e6), (4, 16, 7232, False, 1067e6), (6, 16, 7232, False, 1668e6)],
        *[(6, 16, 7232, True, 1769e6), (4, 16, 2880, True, 933e6)],
    ],
)
def test_peak_memory_matches_measured_runs(
    depth: int, rows: int, vocabulary: int, accumulated: bool, measured: float
) -> None:
    """Peak memory of `groundup pretrain` with the C++ kernels on an AMD EPYC, and in the last five rows on a Xeon."""
    config = shape_for_depth(depth, vocabulary, {"family": "qwen3", "context_length": 512})
    assert fused_training_bytes(config, rows, accumulated=accumulated) == pytest.approx(measured, rel=0.1)


def test_a_long_run_is_measured_even_without_a_time_limit() -> None:
    """The time of `--tokens` runs was not known before they ended."""
    assert _plan(Budget(tokens=10**9), corpus=10**9).tokens_per_second is not None
    assert _plan(Budget(tokens=10_000)).tokens_per_second is None


def test_gpt3_needs_the_compute_of_its_paper() -> None:
    """Table D.1: 3.14e23 FLOPs for 300 billion tokens, without attention."""
    config = PRESETS["gpt3-175b"].config
    assert 300e9 * 6 * matmul_parameters(config) == pytest.approx(3.14e23, rel=0.005)
    assert 300e9 * flops_per_token(config) == pytest.approx(3.14e23, rel=0.05)
