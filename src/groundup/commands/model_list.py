"""`groundup model list`: list the presets, which are configs of published models that `groundup pretrain` can use."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count

if TYPE_CHECKING:
    from groundup.model.presets import Preset

EXAMPLE = "groundup model list qwen3"


class ModelListConfig(Config):
    """Settings of `groundup model list`."""

    name: str = setting("", help="list only names that contain this text", positional=True)


def run(
    config: ModelListConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> list[Preset]:
    """List the presets as a table, or as one JSON object per line.

    Args:
        config: settings of the command.
        console: not used by this command.
        on_text: function that receives the output.
        json_lines: whether to write JSON lines instead of a table.

    Returns:
        The listed presets.

    Raises:
        ConfigError: the name of no preset contains the given text.
    """
    from groundup.model.presets import PRESETS, preset
    from groundup.train.planner.figures import Figures

    found = [each for name, each in PRESETS.items() if config.name.lower() in name]
    if not found:
        preset(config.name)  # Raises an error that suggests the most similar name.
        raise AssertionError("this name is in PRESETS, so the list above must contain it")
    if on_text is None:
        return found
    if json_lines:
        for each in found:
            facts = {"name": each.name, "source": each.source, "note": each.note} | Figures.of(each.config).to_json()
            on_text(json.dumps(facts) + "\n")
        return found
    on_text(_line("name", "family", "parameters", "layers", "dim", "heads", "ffn", "vocabulary", "context", "bf16"))
    for each in found:
        shape, figures = each.config, Figures.of(each.config)
        heads = f"{shape.n_heads}" + (f"/{shape.n_kv_heads}" if shape.n_kv_heads != shape.n_heads else "")
        sizes = (shape.n_layers, shape.dim, heads, shape.ffn_dim, shape.vocab_size, shape.context_length)
        weights = format_count(figures.weight_bytes["bfloat16"], "bytes")
        on_text(_line(each.name, shape.family, f"{figures.parameters:,}", *map(str, sizes), weights))
    return found


def _line(name: str, family: str, *numbers: str) -> str:
    widths = (15, 6, 6, 7, 6, 10, 8, 8)
    right = " ".join(f"{number:>{width}}" for number, width in zip(numbers, widths, strict=True))
    return f"{name:<16} {family:<8}{right}\n"
