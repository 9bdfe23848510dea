"""Settings reject infinite numbers and integers that do not fit into 64 bits.

In an earlier release, `--minutes inf` and such integers passed the validation and caused a traceback.
"""

from __future__ import annotations

from typing import Any

import pytest

from groundup.commands import STAGES
from groundup.core.config import Config, load, settings_of
from groundup.core.errors import ConfigError
from groundup.tokenizer import train_tokenizer


def numbers(kind: type) -> list[tuple[type[Config], str]]:
    return [
        (stage.config, item.name)
        for stage in STAGES.values()
        for item in settings_of(stage.config)
        if item.type is kind
    ]


def refused(config: type[Config], name: str, value: Any) -> ConfigError:
    with pytest.raises(ConfigError, match=f"^{name} = ") as caught:
        load(config, {**_required(config), name: value})
    return caught.value


def _required(config: type[Config]) -> dict[str, Any]:
    return {item.name: "x" for item in settings_of(config) if item.required}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_every_float_of_every_stage_must_be_finite(value: float) -> None:
    found = numbers(float)
    assert len(found) > 20
    for config, name in found:
        assert refused(config, name, value).rule == "must be a finite number", (config, name)


def test_every_integer_of_every_stage_must_fit_into_64_bits() -> None:
    found = numbers(int)
    assert len(found) > 20
    for config, name in found:
        assert refused(config, name, 10**30).rule, (config, name)


def test_a_vocabulary_beyond_what_a_tokenizer_file_may_have_is_refused() -> None:
    """In the tokenizers library, such a vocabulary size caused a Rust panic."""
    with pytest.raises(ConfigError, match="from 320 to 4,000,000"):
        train_tokenizer(["some text"], 2**62)
