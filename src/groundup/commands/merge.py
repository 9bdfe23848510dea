"""`groundup merge`: merge a LoRA adapter into its base model.

The merged model is compared with the base model and its adapter. The logits of language models are compared, and the
predicted labels of classifiers.
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

EXAMPLE = "groundup merge runs/notes/adapter --out models/fine-tuned"


class MergeConfig(Config):
    """Settings of `groundup merge`."""

    adapter: Path = setting(help="directory of an adapter that groundup or PEFT wrote", positional=True)
    out: Path = setting(help="output directory for the merged model", flag=True)
    base: Path | None = setting(None, help="directory of the base model, if it was moved", flag=True)
    dtype: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", help="data type of the merged weights", flag=True
    )
    verify: bool = setting(True, help="compare the merged model with the base model and its adapter", flag=True)


def run(config: MergeConfig, *, console: Console | None = None) -> Artifact:
    """Merge an adapter into its base model in fp32, and write the merged model to a new model directory.

    Args:
        config: settings of the command.
        console: output. Default: the terminal.

    Returns:
        The artifact of the merged model.

    Raises:
        DataError: the adapter or its base model does not exist.
        ConfigError: the directory contains a full model.
        FormatError: the adapter is damaged or was trained on another base model, or the verification failed. No model
            directory is created.
    """
    from groundup.data.held_out import fine_tuning_facts
    from groundup.hub.adapted import find_adapter_base, is_adapter
    from groundup.hub.resolve import is_classifier, model_identity, resolve_model

    console = console or Console()
    classifies = config.adapter.is_dir() and is_classifier(config.adapter)
    directory = config.adapter if classifies else resolve_model(config.adapter)
    if not is_adapter(directory):
        raise ConfigError(
            f"{directory}: a full model, not an adapter",
            rule="an adapter consists of adapter_config.json and adapter_model.safetensors",
            fix="Use the model without merging.",
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
    from groundup.hub import finish_model, save_model
    from groundup.hub.loading import open_model

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
    summary = f"model in {config.dtype}"
    if config.verify:
        verdict = verify_merged_model(config.out, directory, base, tokenizer, config.dtype, console)
        (agreement,) = verdict.agreements
        found |= {"verification": verdict.to_json()}
        summary += (
            f"; same most likely token as base model and adapter at {agreement.agreed:,} of {agreement.positions:,}"
            f" positions, largest difference of logits {agreement.max_difference:.1g}"
        )
    return finish_model(work, found | result_facts(summary), files, base=base)


def _classifier(
    config: MergeConfig, directory: Path, base: Path, work: Work, found: dict[str, Any], console: Console
) -> Artifact:
    import torch

    from groundup.evaluation.verification.merges import verify_merged_classifier
    from groundup.hub import finish_model, save_classifier
    from groundup.hub.loading import MODEL_MAX_LENGTH, open_classifier
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
    summary = f"classifier in {config.dtype} with {len(opened.labels)} labels"
    if config.verify:
        agreement = verify_merged_classifier(config.out, directory, base, tokenizer, longest, config.dtype, console)
        found |= {"verification": agreement.to_json()}
        summary += (
            f"; same labels as base model and adapter for {agreement.agreed:,} of {agreement.texts:,} texts, largest"
            f" difference of probabilities {agreement.max_difference:.1g}"
        )
    return finish_model(work, found | result_facts(summary), files, base=base)


def _learned(out: Path, adapter: Path) -> Path:
    """Copy the hashes of the adapter's training examples to the merged model."""
    from groundup.data.training_hashes import save_training_hashes, training_hashes

    return save_training_hashes(out, (), training_hashes(adapter))
