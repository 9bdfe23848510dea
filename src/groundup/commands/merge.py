"""`groundup merge`: an adapter and the model that it was trained beside, to one whole model.

What was written is tried beside base and adapter: a language model by the gate that imports and exports go through, a
classifier by the labels that it gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from groundup.commands._result import result_facts, show_result, with_work_directory
from groundup.core.artifact import Artifact, Work, begin, read
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.files import shell_quoted

EXAMPLE = "groundup merge runs/notes/adapter --out models/tuned"


class MergeConfig(Config):
    """Which adapter, and where the model goes."""

    adapter: Path = setting(help="directory of an adapter, ours or PEFT's", positional=True)
    out: Path = setting(help="directory for the model", flag=True)
    base: Path | None = setting(None, help="where its base lies now", flag=True)
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", help="of the weights", flag=True)
    gate: bool = setting(True, help="try it beside base and adapter", flag=True)


def run(config: MergeConfig, *, console: Console | None = None) -> Artifact:
    """Merge in fp32, write, and leave a model directory that needs neither the adapter nor its base.

    Raises:
        DataError: no adapter there, or its base is gone.
        ConfigError: it is a whole model.
        FormatError: damaged, or its base is not the model that it was trained beside; or the merged model does not
            answer as the two do, and nothing is kept.
    """
    from groundup.data.held_out import fine_tuning_facts
    from groundup.hub.adapted import find_adapter_base, is_adapter
    from groundup.hub.resolve import is_classifier, model_identity, resolve_model

    console = console or Console()
    classifies = config.adapter.is_dir() and is_classifier(config.adapter)
    directory = config.adapter if classifies else resolve_model(config.adapter)
    if not is_adapter(directory):
        raise ConfigError(
            f"{directory}: a whole model",
            rule="what is merged is an adapter: adapter_config.json with adapter_model.safetensors",
            fix="Use it as it is: there is nothing to merge.",
        )
    base = find_adapter_base(directory, config.base)
    inputs = {"adapter": model_identity(directory), "base": model_identity(base)}
    work = begin(config.out, "merge", {"dtype": config.dtype}, inputs, console=console)
    if work.state == "done":
        return show_result(console, config.out, read(config.out))
    found = {"adapter": str(directory), "base": str(base), **fine_tuning_facts(directory)}
    writing = _classifier if classifies else _language_model
    try:
        made = writing(with_work_directory(config, work), directory, base, work, found, console)
    except BaseException:
        work.abandon()
        raise
    show_result(console, config.out, made)
    console.note(f"    groundup {'classify' if classifies else 'chat'} {shell_quoted(config.out)}")
    return made


def _language_model(
    config: MergeConfig, directory: Path, base: Path, work: Work, found: dict[str, Any], console: Console
) -> Artifact:
    import torch

    from groundup.evaluation.verification.merges import verify_merged_model
    from groundup.hub import save_model
    from groundup.hub.resolve import open_model

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
    summary = f"one model in {config.dtype}"
    if config.gate:
        verdict = verify_merged_model(config.out, directory, base, tokenizer, config.dtype, console)
        (agreement,) = verdict.agreements
        found |= {"gate": verdict.to_json()}
        summary += (
            f"; beside base and adapter it finds the same likeliest token at {agreement.agreed:,} of"
            f" {agreement.positions:,} places, its logits within {agreement.max_difference:.1g}"
        )
    return work.finish(found | result_facts(summary), files)


def _classifier(
    config: MergeConfig, directory: Path, base: Path, work: Work, found: dict[str, Any], console: Console
) -> Artifact:
    import torch

    from groundup.evaluation.verification.merges import verify_merged_classifier
    from groundup.hub import save_classifier
    from groundup.hub.resolve import MODEL_MAX_LENGTH, open_classifier
    from groundup.inference.novelty import Novelty

    opened = open_classifier(directory, device="cpu", base=base)
    tokenizer, longest = opened.tokenizer, opened.longest
    model = opened.model.to(getattr(torch, config.dtype))
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    files = save_classifier(config.out, model, opened.labels, **ids)
    tokenizer.config[MODEL_MAX_LENGTH] = longest
    files += [*tokenizer.save(config.out), _learned(config.out, directory)]
    if novelty := Novelty.load(directory):
        files.append(novelty.save(config.out))
    summary = f"one classifier in {config.dtype}, of {len(opened.labels)} labels"
    if config.gate:
        agreement = verify_merged_classifier(config.out, directory, base, tokenizer, longest, config.dtype, console)
        found |= {"gate": agreement.to_json()}
        summary += (
            f"; beside base and adapter it labels {agreement.agreed:,} of {agreement.texts:,} texts alike, its"
            f" probabilities within {agreement.max_difference:.1g}"
        )
    return work.finish(found | result_facts(summary), files)


def _learned(out: Path, adapter: Path) -> Path:
    """Keep the hashes of the adapter's training examples with the merged model."""
    from groundup.data.training_hashes import save_training_hashes, training_hashes

    return save_training_hashes(out, (), training_hashes(adapter))
