"""`groundup model show`: show the size, FLOPs, memory, tokenizer and provenance of a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.core.config import Config, setting
from groundup.core.console import Console, format_count, visible
from groundup.core.errors import ConfigError

if TYPE_CHECKING:
    from groundup.model import ModelConfig

_SHOWN_HISTORY = 5
EXAMPLE = "groundup model show gpt3-175b"


class ModelShowConfig(Config):
    """Settings of `groundup model show`."""

    model: str = setting(help="model directory, run, GGUF file, or name in `groundup model list`", positional=True)
    speed: bool = setting(True, help="predict speed and memory on this machine", flag=True)


def run(
    config: ModelShowConfig,
    *,
    console: Console | None = None,
    on_text: Callable[[str], None] | None = None,
    json_lines: bool = False,
) -> dict[str, Any]:
    """Describe a model as a table, or as one JSON object.

    Args:
        config: settings of the command.
        console: not used by this command.
        on_text: function that receives the output.
        json_lines: whether to write JSON instead of a table.

    Returns:
        The facts about the model, as JSON values.

    Raises:
        ConfigError: the argument is neither the name of a preset nor an existing path.
        DataError: the directory does not contain a model.
        FormatError: the model is damaged, or its architecture is unknown.
    """
    facts = _facts(config.model, speed=config.speed)
    if on_text is not None and json_lines:
        on_text(json.dumps(facts, ensure_ascii=False) + "\n")
    elif on_text is not None:
        for key, value in _rows(facts):
            on_text(visible(f"{key:<16} {value}") + "\n")
    return facts


def _facts(named: str, *, speed: bool) -> dict[str, Any]:
    from groundup.core.files import expand_home
    from groundup.hub.description import describe_directory, describe_gguf
    from groundup.model.presets import preset
    from groundup.train.planner.figures import Figures

    path = expand_home(Path(named))
    if path.is_dir() or path.is_file():
        found = describe_directory(path) if path.is_dir() else describe_gguf(path)
        return found.place | Figures.of(found.config).to_json() | found.details | _speed(found.config, wanted=speed)
    try:
        published = preset(named)
    except ConfigError as error:
        if path.name == named:
            raise
        fix = "Check the path, or give a name that `groundup model list` shows."
        raise ConfigError(f"{named}: no such file or directory", fix=fix) from error
    origin = {"name": published.name, "source": published.source, "note": published.note}
    return origin | Figures.of(published.config).to_json() | _speed(published.config, wanted=speed)


def _speed(config: ModelConfig, *, wanted: bool) -> dict[str, Any]:
    from groundup.inference.prediction import speed_facts

    return {"speed": speed_facts(config)} if wanted else {}


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from groundup.model import ModelConfig
    from groundup.train.planner.figures import describe_shape

    shape = ModelConfig.from_json(facts["shape"])
    yield "model", str(facts.get("name") or facts.get("directory") or facts.get("file"))
    for key in ("source", "note"):
        if facts.get(key):
            yield key, facts[key]
    if facts.get("adapter_of"):
        yield "adapter of", facts["adapter_of"]
    yield "family", shape.family
    yield "shape", describe_shape(shape)
    yield "parameters", f"{facts['parameters']:,} ({facts['matmul_parameters']:,} in matmuls)"
    tied = "tied embeddings" if shape.tie_embeddings else "untied embeddings"
    yield "vocabulary", f"{shape.vocab_size:,} tokens, {tied}"
    scaled = f", {shape.rope_scaling.kind} scaling x {shape.rope_scaling.factor:g}" if shape.rope_scaling else ""
    yield "context", f"{shape.context_length:,} tokens{scaled}"
    work, memory = facts["flops_per_token"], facts["memory_bytes"]
    yield "FLOPs per token", f"{work['training']:.3g} in training, {work['inference']:.3g} in inference"
    weights, cache = memory["weights"], memory["cache_per_token"]
    yield "weights", f"{_size(weights['bfloat16'])} in bf16, {_size(weights['float32'])} in fp32"
    whole = _size(cache["bfloat16"] * shape.context_length)
    yield "KV cache", f"{_size(cache['bfloat16'])} per token in bf16, {whole} for the full context"
    yield "training memory", f"about {_size(memory['training'])} with one sequence of {shape.context_length:,} tokens"
    if stored := facts.get("stored"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in stored["tensors"].items())
        yield "on disk", f"{_size(stored['bytes'])}; tensors: {kinds}"
    if words := facts.get("tokenizer"):
        chat = "a chat template" if words["chat_template"] else "no chat template"
        yield "tokenizer", f"{words['kind']}, {words['vocab_size']:,} tokens, {chat}"
    if made := facts.get("made_by"):
        base = f", from {made['base']}" if made["base"] else ""
        yield "created by", f"{made['stage']}{base}, {made['finished_at']}, in {made['seconds']:,.0f} s"
        yield "inputs", ", ".join(f"{name} {digest[:12]}" for name, digest in made["inputs"].items()) or "none"
    if speed := facts.get("speed"):
        yield from _speed_rows(speed)


def _speed_rows(speed: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "predicted speed", f"at a context of 512 tokens, on {speed['sentence']}"
    for each in speed["formats"]:
        sizes = f"weights {_size(each['weights'])}, KV cache {_size(each['cache_per_1k'])} per 1,000 tokens"
        speeds = {"prefill": each["prefill"], "decode": each["decode"], "8 requests": each["decode_batch_8"]}
        shown = ", ".join(f"{name} {value:,.{0 if value >= 100 else 1}f}" for name, value in speeds.items())
        if each["fits"]:
            yield each["format"], f"{shown} tokens/s; {sizes}"
        else:
            needed, available = _size(each["needed"]), _size(each["available"])
            yield each["format"], f"does not fit: needs {needed}, this machine has {available}; {sizes}"
    for each in speed["history"][-_SHOWN_HISTORY:]:
        error = f"{each['predicted'] / each['measured'] - 1:+.0%}"
        found = f"predicted {each['predicted']:,.1f}, measured {each['measured']:,.1f} tokens/s ({error})"
        yield each["at"][:10], f"{each['model']}, {each['format']}, {each['figure'].replace('_', ' ')}: {found}"


def _size(value: int) -> str:
    return format_count(value, "bytes")
