"""`groundup export gguf`: a model directory to one file for llama.cpp and what is built on it, with Ollama's Modelfile.

The file is read back before it gets its name, by groundup and by llama.cpp where that is installed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from groundup import __version__
from groundup.commands._closing import closing, say_result
from groundup.core.artifact import Artifact, fingerprint_of, read_record, record, write_record
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, FormatError
from groundup.core.files import atomic_file, file_digest, shell_quoted

if TYPE_CHECKING:
    from groundup.core.types import Message
    from groundup.evaluation.verification.round_trip import Material
    from groundup.hub.gguf import Fallback, GgufVocabulary
    from groundup.hub.resolve import OpenedModel
    from groundup.tokenizer import ChatTemplate

STAGE = "export.gguf"
Type = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k"]
_SUFFIX = ".gguf"


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
    from groundup.hub.exports import ALL_TYPES, record_path
    from groundup.hub.resolve import model_identity, resolve_model

    console = console or Console()
    started = time.monotonic()
    directory = resolve_model(config.model)
    kinds: tuple[Type, ...] = get_args(Type) if config.type == "all" else (config.type,)
    files = _files(config, directory, kinds)
    keys = {"type": config.type, "gate": config.gate}
    inputs = {"model": model_identity(directory)}
    if config.texts is not None:
        from groundup.data.texts import texts_identity

        inputs["texts"] = texts_identity(config.texts)
    path = config.out / ALL_TYPES if len(kinds) > 1 else record_path(files[kinds[0]])
    if (done := _done(path, fingerprint_of(STAGE, keys, inputs))) is not None:
        console.note(f"{config.out} is finished, with these settings and inputs: nothing to do.")
        return say_result(console, config.out, done)

    facts = _export(config, directory, files, console)
    made = record(STAGE, keys, inputs, path.parent, list(files.values()), facts, time.monotonic() - started)
    write_record(path, made)
    say_result(console, config.out, made)
    for command in facts["next"]:
        console.note(f"    {command}")
    return made


def _files(config: ExportGgufConfig, directory: Path, kinds: Sequence[Type]) -> dict[Type, Path]:
    """Where each type goes."""
    named = config.out.suffix.lower() == _SUFFIX
    wrong = "a file" if config.out.is_file() and not named else "a directory" if config.out.is_dir() and named else ""
    if wrong or (named and len(kinds) > 1):
        raise ConfigError(
            f"--out {config.out}: {wrong or 'one file'}",
            rule=f"a name that ends in {_SUFFIX} is that of the file, any other that of the directory for it",
            fix="Give another --out.",
        )
    if named:
        return {kinds[0]: config.out}
    return {kind: config.out / f"{directory.resolve().name}-{kind}{_SUFFIX}" for kind in kinds}


def _done(path: Path, wanted: str) -> Artifact | None:
    if not path.is_file():
        return None
    try:
        made = read_record(path)
    except FormatError:  # somebody else's file, or damaged: made anew
        return None
    whole = all(
        (path.parent / name).is_file() and file_digest(path.parent / name) == digest
        for name, digest in made.outputs.items()
    )
    return made if whole and made.fingerprint == wanted else None


def _export(config: ExportGgufConfig, directory: Path, files: Mapping[Type, Path], console: Console) -> dict[str, Any]:
    from groundup.evaluation.verification.gguf import gate_sentence, gate_table
    from groundup.evaluation.verification.round_trip import material
    from groundup.hub.gguf import agreed_length, tokenizer_to_gguf
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
    texts: list[str] = []
    if config.texts is not None:
        from groundup.data.texts import read_texts

        texts = list(read_texts(config.texts))
    tried = material(tokenizer, agreed_length(shape), texts)
    made: dict[str, dict[str, Any]] = {
        kind: _one(opened, vocabulary, kind, path, tried, config.gate, console) for kind, path in files.items()
    }
    path = next(iter(files.values()))
    modelfile = _write_modelfile(opened, template, vocabulary, files.get("q8_0", path))
    columns, rows = gate_table(made)
    summary = ", ".join(f"{facts['bytes'] / 1e6:,.1f} MB of {kind}" for kind, facts in made.items())
    following = [f"ollama create NAME -f {shell_quoted(modelfile)}", f"llama-cli -m {shell_quoted(path)}"]
    told = closing(f"{summary}; {modelfile.name}, {gate_sentence(made)}", "GGUF", columns, rows)
    return {"files": made, "modelfile": str(modelfile), "next": following, **told}


def _one(
    opened: OpenedModel,
    vocabulary: GgufVocabulary,
    kind: Type,
    path: Path,
    tried: Material,
    gate: bool,
    console: Console,
) -> dict[str, Any]:
    """Write a file of one type and try it; only then it gets its name."""
    from groundup.evaluation.verification.gguf import try_file
    from groundup.hub.gguf import write_gguf

    unchecked = path.with_name(f".{path.name}.unchecked.tmp{_SUFFIX}")
    try:
        with console.progress(f"writing {kind}", None, "bytes") as bar:
            written = write_gguf(
                unchecked,
                opened.model.config,
                opened.model.state_dict(),
                vocabulary.metadata,
                kind,
                name=opened.directory.resolve().name,
                advance=bar.advance,
            )
        for note in written.notes:
            console.warn(note)
        for (wanted, got, why), names in _grouped(written.fallbacks).items():
            console.note(f"{got} in the place of {wanted} in {len(names)} tensors: {why} ({', '.join(names[:3])}, ...)")
        facts: dict[str, Any] = {
            "bytes": written.n_bytes,
            "weights": sum(parameter.numel() for parameter in opened.model.parameters()),
            "fallbacks": [asdict(fallback) for fallback in written.fallbacks],
        }
        if gate:
            facts["gate"] = try_file(opened, unchecked, path.name, kind, tried, console)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    return facts


def _grouped(fallbacks: Sequence[Fallback]) -> dict[tuple[str, str, str], list[str]]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for fallback in fallbacks:
        found.setdefault((fallback.wanted, fallback.got, fallback.why), []).append(fallback.tensor)
    return found


def _write_modelfile(
    opened: OpenedModel, template: ChatTemplate | None, vocabulary: GgufVocabulary, file: Path
) -> Path:
    """Beside the file; a Modelfile that is somebody's own, or for another file, is left alone."""
    from groundup.hub.modelfile import find_turns, modelfile

    tokenizer = opened.tokenizer
    turns = None
    first = tokenizer.token_bytes(tokenizer.bos_id).decode(errors="replace")
    if template is not None:

        def render(messages: Sequence[Message], answer: bool) -> str:
            assert template is not None
            return template.render(messages, add_generation_prompt=answer)

        turns = find_turns(render, bos=first if vocabulary.metadata.get("tokenizer.ggml.add_bos_token") else "")
    written_by = f"Written by groundup {__version__} for {file.name}"
    text = modelfile(
        file.name,
        turns=turns,
        chats=template is not None,
        stops=[tokenizer.decode([token], skip_special_tokens=False) for token in opened.stop_ids],
        context_length=opened.model.config.context_length,
        written_by=written_by,
    )
    target = file.with_name("Modelfile")
    if target.is_file() and not re.match(rf"# Written by groundup \S+ for {re.escape(file.name)}\n", _head(target)):
        target = file.with_name(f"{file.stem}.Modelfile")
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _head(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000)
