"""`groundup export gguf`: write a model directory as one GGUF file for llama.cpp, with a Modelfile for Ollama.

The file is read back before it gets its name, by groundup and by llama.cpp if that is installed.
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
    """Which model, to which file, how precise."""

    model: Path = setting(help="model directory, or a run (its newest language model)", positional=True)
    out: Path = setting(help="the file, NAME.gguf; or a directory, which gets NAME-TYPE.gguf", flag=True)
    type: Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "all"] = setting(
        "f16", help="of the matrices; all: a file of each, and a table that compares them", flag=True
    )
    gate: bool = setting(True, help="run the file beside the model, with llama.cpp too if installed", flag=True)
    texts: Path | None = setting(None, help="texts of yours to compare on; default: pages on Python", flag=True)


def run(config: ExportGgufConfig, *, console: Console | None = None) -> Artifact:
    """Write, read back, compare, and leave the file with a Modelfile and a record of what was found beside it.

    Raises:
        DataError: no model there.
        ConfigError: a name that cannot take the file.
        FormatError: the file does not say what the model says; there is none then.
    """
    from groundup.hub.exports import ALL_TYPES, STAGE, export_paths, finished_export, record_path
    from groundup.hub.resolve import model_identity, resolve_model

    console = console or Console()
    started = time.monotonic()
    directory = resolve_model(config.model)
    files = export_paths(config.out, directory.resolve().name, config.type)
    keys = {"type": config.type, "gate": config.gate}
    inputs = {"model": model_identity(directory)}
    if config.texts is not None:
        from groundup.data.texts import texts_identity

        inputs["texts"] = texts_identity(config.texts)
    path = config.out / ALL_TYPES if len(files) > 1 else record_path(next(iter(files.values())))
    if (done := finished_export(path, fingerprint_of(STAGE, keys, inputs))) is not None:
        console.note(f"{config.out} is finished, with these settings and inputs: nothing to do.")
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
    from groundup.evaluation.verification.gguf import gate_sentence, gate_table, write_verified
    from groundup.evaluation.verification.round_trip import material
    from groundup.hub.gguf import agreed_length, tokenizer_to_gguf
    from groundup.hub.modelfile import write_modelfile
    from groundup.hub.resolve import open_model
    from groundup.tokenizer import locked_template

    opened = open_model(directory, device="cpu")
    tokenizer, shape = opened.tokenizer, opened.model.config
    template = locked_template(opened.directory, tokenizer) if tokenizer.chat_template is not None else None
    vocabulary = tokenizer_to_gguf(
        tokenizer.definition,
        tokenizer.config,
        shape.vocab_size,
        stop_ids=opened.stop_ids,
        chat_template=tokenizer.chat_template,
    )
    for name, difference in vocabulary.differences:
        console.warn(f"llama.cpp will split {name} in another way: {difference}")
    texts = [] if config.texts is None else list(read_texts(config.texts))
    tried = material(tokenizer, agreed_length(shape), texts) if config.gate else None
    made: dict[str, dict[str, Any]] = {
        kind: write_verified(opened, vocabulary, kind, path, tried, console) for kind, path in files.items()
    }
    path = next(iter(files.values()))
    adds_bos = bool(vocabulary.metadata.get("tokenizer.ggml.add_bos_token"))
    modelfile = write_modelfile(files.get("q8_0", path), opened, template, adds_bos=adds_bos)
    columns, rows = gate_table(made)
    summary = ", ".join(f"{facts['bytes'] / 1e6:,.1f} MB of {kind}" for kind, facts in made.items())
    following = [f"ollama create NAME -f {shell_quoted(modelfile)}", f"llama-cli -m {shell_quoted(path)}"]
    table = result_facts(f"{summary}; {modelfile.name}, {gate_sentence(made)}", "GGUF", columns, rows)
    return {"files": made, "modelfile": str(modelfile), "next": following, **table}
