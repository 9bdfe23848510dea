"""Presets: published parameter counts, compared with the models that groundup builds."""

from __future__ import annotations

import time

import pytest
import torch

from groundup.core.errors import ConfigError
from groundup.model import Transformer
from groundup.model.flops import parameter_count
from groundup.model.presets import PRESETS, preset

# Published parameter counts, from model cards and headers of weight files. GPT-3: table D.1 of the paper, in millions.
# Gemma 3 from 4B: table 1 of the report, in millions without embeddings.
COUNTS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "olmo2-1b": 1_484_916_736,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
    "olmo2-32b": 32_234_279_936,
    "phi3-mini-4k": 3_821_079_552,
    "phi3-medium-4k": 13_960_238_080,
    "granite3-2b": 2_533_531_648,
    "granite3-8b": 8_170_848_256,
    "smollm3-3b": 3_075_098_624,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma2-27b": 27_227_128_320,
    "gemma3-270m": 268_098_176,
    "gemma3-1b": 999_885_952,
}
GPT3_MILLIONS = {
    "gpt3-125m": 125,
    "gpt3-350m": 356,
    "gpt3-760m": 760,
    "gpt3-1.3b": 1_320,
    "gpt3-2.7b": 2_650,
    "gpt3-6.7b": 6_660,
    "gpt3-13b": 12_850,
    "gpt3-175b": 174_600,
}
GEMMA3_MILLIONS_WITHOUT_EMBEDDINGS = {"gemma3-4b": 3_209, "gemma3-12b": 10_759, "gemma3-27b": 25_600}


def built(name: str) -> int:
    """Return the number of parameters of a model on the meta device; tied embeddings count once."""
    with torch.device("meta"):
        model = Transformer(PRESETS[name].config)
    return sum(parameter.numel() for parameter in model.parameters())


def test_presets_have_the_published_parameter_counts() -> None:
    started = time.monotonic()
    found = {name: built(name) for name in PRESETS}
    assert time.monotonic() - started < 30
    assert {name: parameter_count(each.config) for name, each in PRESETS.items()} == found
    assert {name: found[name] for name in COUNTS} == COUNTS
    for name, millions in GPT3_MILLIONS.items():  # the paper rounds to three or four digits
        assert found[name] / 1e6 == pytest.approx(millions, rel=0.005), name
    for name, millions in GEMMA3_MILLIONS_WITHOUT_EMBEDDINGS.items():
        config = PRESETS[name].config
        assert round((found[name] - config.vocab_size * config.dim) / 1e6) == millions, name
    assert set(PRESETS) == {*COUNTS, *GPT3_MILLIONS, *GEMMA3_MILLIONS_WITHOUT_EMBEDDINGS}


def test_gpt3_presets_state_their_differences() -> None:
    """GPT-3 has 174.6 billion parameters, and its preset is dense, unlike the published model."""
    assert f"{built('gpt3-175b') / 1e9:.1f}" == "174.6"
    assert all("sparse" in each.note for name, each in PRESETS.items() if name.startswith("gpt3"))
    assert not PRESETS["gpt2"].note


@pytest.mark.parametrize(
    ("typed", "meant"), [("qwen3-0.6", "qwen3-0.6b"), ("gpt2xl", "gpt2-xl"), ("lama2-7b", "llama2-7b")]
)
def test_a_misspelled_name_suggests_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"Did you mean {meant}"):
        preset(typed)
    assert preset(meant.upper()).name == meant
