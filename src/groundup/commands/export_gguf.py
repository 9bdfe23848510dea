"""`groundup export gguf`: convert a model to a GGUF file for llama.cpp, and write a Modelfile for Ollama.

A file gets its final name only after it was verified with groundup and, if installed, with llama.cpp.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.commands._result import result_facts, show_result
from groundup.core.artifact import Artifact, fingerprint_of, record, write_record
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.files import shell_quoted

if TYPE_CHECKING:
    from groundup.hub.gguf import FileType

EXAMPLE = "groundup export gguf runs/quickstart --out quickstart.gguf --type q8_0"


class ExportGgufConfig(Config):
    """Settings of `groundup export gguf`."""

    model: Path = setting(help="model directory, or a run (uses its newest language model)", positional=True)
    out: Path = setting(help="output file NAME.gguf, or directory for files named MODEL-TYPE.gguf", flag=True)
    type: Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "all"] = setting(
        "f16", help="data type of the matrices; all: write one file per type and compare them", flag=True
    )
    verify: bool = setting(True, help="compare the file with the model, also in llama.cpp if installed", flag=True)
    texts: Path | None = setting(
        None, help="texts for the verification; default: pages of Python's language reference", flag=True
    )


def run(config: ExportGgufConfig, *, console: Console | None = None) -> Artifact:
    """Write a GGUF file and verify it. Then write a Modelfile and a record with the checksum next to the GGUF file.

    Args:
        config: settings of the command.
        console: output. Default: the terminal.

    Returns:
        The record of the export.

    Raises:
        DataError: the model does not exist.
        ConfigError: the output path is invalid.
        FormatError: the outputs of the GGUF file and of the model differ too much. The file is deleted.
    """
    from groundup.hub.exports import ALL_TYPES, STAGE, export_paths, finished_export, record_path
    from groundup.hub.resolve import model_identity, resolve_model

    console = console or Console()
    started = time.monotonic()
    directory = resolve_model(config.model)
    files = export_paths(config.out, directory.resolve().name, config.type)
    keys = {"type": config.type, "verify": config.verify}
    inputs = {"model": model_identity(directory)}
    if config.texts is not None:
        from groundup.data.texts import texts_identity

        inputs["texts"] = texts_identity(config.texts)
    path = config.out / ALL_TYPES if len(files) > 1 else record_path(next(iter(files.values())))
    if (done := finished_export(path, fingerprint_of(STAGE, keys, inputs))) is not None:
        console.note(f"{config.out} is up to date with these settings and inputs.")
        return show_result(console, config.out, done)

    facts = _export(config, directory, files, console)
    made = record(STAGE, keys, inputs, path.parent, list(files.values()), facts, time.monotonic() - started)
    write_record(path, made)
    show_result(console, config.out, made)
    for command in facts["next"]:
        console.note(f"    {command}")
    return made


def _export(
    config: ExportGgufConfig, directory: Path, files: Mapping[FileType, Path], console: Console
) -> dict[str, Any]:
    from groundup.data.texts import read_texts
    from groundup.evaluation.verification.gguf import verification_sentence, verification_table, write_verified
    from groundup.evaluation.verification.round_trip import round_trip_inputs
    from groundup.hub.gguf import agreed_length, tokenizer_to_gguf
    from groundup.hub.loading import open_model
    from groundup.hub.modelfile import write_modelfile
    from groundup.tokenizer import load_chat_template

    opened = open_model(directory, device="cpu")
    tokenizer, shape = opened.tokenizer, opened.model.config
    template = load_chat_template(opened.directory, tokenizer) if tokenizer.chat_template is not None else None
    vocabulary = tokenizer_to_gguf(
        tokenizer.definition,
        tokenizer.config,
        shape.vocab_size,
        stop_ids=opened.stop_ids,
        chat_template=tokenizer.chat_template,
    )
    for name, difference in vocabulary.differences:
        console.warn(f"llama.cpp will tokenize {name} differently: {difference}")
    texts = [] if config.texts is None else list(read_texts(config.texts))
    inputs = round_trip_inputs(tokenizer, agreed_length(shape), texts) if config.verify else None
    made: dict[str, dict[str, Any]] = {
        kind: write_verified(opened, vocabulary, kind, path, inputs, console) for kind, path in files.items()
    }
    path = next(iter(files.values()))
    adds_bos = bool(vocabulary.metadata.get("tokenizer.ggml.add_bos_token"))
    modelfile = write_modelfile(files.get("q8_0", path), opened, template, adds_bos=adds_bos)
    columns, rows = verification_table(made)
    summary = ", ".join(f"{facts['bytes'] / 1e6:,.1f} MB of {kind}" for kind, facts in made.items())
    following = [f"ollama create NAME -f {shell_quoted(modelfile)}", f"llama-cli -m {shell_quoted(path)}"]
    table = result_facts(f"{summary}; {modelfile.name}, {verification_sentence(made)}", "GGUF", columns, rows)
    return {"files": made, "modelfile": str(modelfile), "next": following, **table}
