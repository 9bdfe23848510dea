"""`groundup merge`: an adapter and the model that it was trained beside, to one whole model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.artifact import Artifact, Work, begin, read
from groundup.config import Config, setting
from groundup.console import Console
from groundup.errors import ConfigError
from groundup.stages._closing import closing, say_result
from groundup.stages._held_out import tuning_of

if TYPE_CHECKING:
    from groundup.model import Transformer

_COMPARED = 64  # tokens


class MergeConfig(Config):
    """Which adapter, and where the model goes."""

    adapter: Path = setting(help="directory of an adapter, ours or PEFT's", positional=True)
    out: Path = setting(help="directory for the model", flag=True)
    base: Path | None = setting(None, help="where its base lies now", flag=True)
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", help="of the weights", flag=True)


def run(config: MergeConfig, *, console: Console | None = None) -> Artifact:
    """Merge in fp32, write, and leave a model directory that needs neither the adapter nor its base.

    Raises:
        DataError: no adapter there, or its base is gone.
        ConfigError: it is a whole model.
        FormatError: damaged, or its base is not the model that it was trained beside.
    """
    from groundup.checkpoint.adapted import find_base, is_adapter
    from groundup.checkpoint.resolve import is_classifier, model_identity, resolve_model

    console = console or Console()
    classifies = config.adapter.is_dir() and is_classifier(config.adapter)
    directory = config.adapter if classifies else resolve_model(config.adapter)
    if not is_adapter(directory):
        raise ConfigError(
            f"{directory}: a whole model",
            rule="what is merged is an adapter: adapter_config.json with adapter_model.safetensors",
            fix="Use it as it is: there is nothing to merge.",
        )
    base = find_base(directory, config.base)
    inputs = {"adapter": model_identity(directory), "base": model_identity(base)}
    work = begin(config.out, "merge", {"dtype": config.dtype}, inputs, console=console)
    if work.state == "done":
        return say_result(console, config.out, read(config.out))
    found = {"adapter": str(directory), "base": str(base), **tuning_of(directory)}
    made = (_classifier if classifies else _language_model)(config, directory, base, work, found)
    say_result(console, config.out, made)
    console.note(f"    groundup {'classify' if classifies else 'chat'} {config.out}")
    return made


def _language_model(config: MergeConfig, directory: Path, base: Path, work: Work, found: dict[str, Any]) -> Artifact:
    import torch

    from groundup.checkpoint import load_model, save_model
    from groundup.checkpoint.adapted import with_adapter
    from groundup.checkpoint.resolve import open_model

    opened = open_model(directory, device="cpu", base=base)
    tokenizer = opened.tokenizer
    files = save_model(
        config.out,
        opened.model.to(getattr(torch, config.dtype)),
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        stop_ids=tokenizer.stop_ids,
    )
    files += [*tokenizer.save(config.out), _learned(config.out, directory)]
    farthest = _farthest(load_model(config.out), with_adapter(load_model(base), directory))
    said = f"one model in {config.dtype}; its logits are within {farthest:.1g} of those of base and adapter"
    return work.finish(found | {"largest_difference": farthest} | closing(said), files)


def _classifier(config: MergeConfig, directory: Path, base: Path, work: Work, found: dict[str, Any]) -> Artifact:
    import torch

    from groundup.checkpoint import save_classifier
    from groundup.checkpoint.resolve import MODEL_MAX_LENGTH, open_classifier

    opened = open_classifier(directory, device="cpu", base=base)
    tokenizer = opened.tokenizer
    model = opened.model.to(getattr(torch, config.dtype))
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    files = save_classifier(config.out, model, opened.labels, **ids)
    tokenizer.config[MODEL_MAX_LENGTH] = opened.longest
    files += [*tokenizer.save(config.out), _learned(config.out, directory)]
    return work.finish(found | closing(f"one classifier in {config.dtype}, of {len(opened.labels)} labels"), files)


def _learned(out: Path, adapter: Path) -> Path:
    """What the adapter was trained on, kept beside the merged model, too."""
    from groundup.examples.learned import learned_by, save_learned

    return save_learned(out, (), learned_by(adapter))


def _farthest(one: Transformer, other: Transformer) -> float:
    """The largest difference between the logits of two models, on tokens from everywhere in the vocabulary."""
    import torch

    length = min(_COMPARED, one.config.context_length)
    ids = torch.linspace(0, one.config.vocab_size - 1, length).long()[None]
    with torch.inference_mode():
        return float((one(ids) - other(ids)).abs().max())
