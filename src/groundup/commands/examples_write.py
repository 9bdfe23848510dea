"""`groundup examples write`: write questions and answers to the user's documents, to fine-tune a reader on them."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.commands import index as index_command
from groundup.commands._result import result_facts, show_result
from groundup.core import artifact
from groundup.core.artifact import ARTIFACT, Artifact
from groundup.core.config import Config, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError
from groundup.core.plural import pluralize
from groundup.core.types import InferenceDtype

if TYPE_CHECKING:
    from groundup.retrieval.examples.writers import Answerer, Writer

EXAMPLE = "groundup examples write runs/notes/index --model models/writer --out runs/notes/examples"


class ExamplesWriteConfig(Config):
    """Settings of `groundup examples write`. The source, the output directory, and a model or a server are required."""

    source: Path = setting(help="Index, or a folder or corpus to index", positional=True)
    out: Path = setting(help="Output directory for train.jsonl and test.jsonl", flag=True)
    model: Path | None = setting(None, help="Model that writes the questions: a directory, GGUF file or run", flag=True)
    server: str | None = setting(
        None, help="Base URL of an OpenAI-compatible API that writes them instead, such as http://host/v1", flag=True
    )
    server_model: str | None = setting(None, help="Name of the model on the server", flag=True)
    key_variable: str | None = setting(
        None, help="Environment variable with the key of the server; default: OPENAI_API_KEY for OpenAI", flag=True
    )
    reader: Path | None = setting(None, help="Model that must give the same answers; default: the writer", flag=True)
    questions: int = setting(3, help="Maximum number of questions to each passage", flag=True, ge=1, le=20)
    refusals: int = setting(
        1, help="Maximum number of passages without the answer to each question, with a refusal", flag=True, ge=0, le=10
    )
    max_passages: int = setting(1_000, help="Maximum number of passages, evenly spaced", flag=True, ge=1)
    test_fraction: float = setting(0.2, help="Approximate fraction of the questions in the test set", gt=0, lt=1)
    base: Path | None = setting(None, help="Base model of an adapter, if it was moved")
    device: str | None = setting(None, help="Device, such as cpu or cuda; default: a GPU if available")
    dtype: InferenceDtype = setting("auto", help="Weight format; auto: bfloat16 if possible")


def run(config: ExamplesWriteConfig, *, console: Console | None = None) -> Artifact:
    """Write a training set and a test set for `groundup finetune instruct --application answer`.

    An interrupted run continues after the last passage.

    Raises:
        ConfigError: There is no writer, or the server refuses the request.
        DataError: The source has no text, no question was usable, or a model does not exist.
        ResourceError: The server does not answer.
    """
    from groundup.retrieval import Index
    from groundup.retrieval.examples import writing
    from groundup.retrieval.examples.writers import open_model_writer

    console = console or Console()
    models = _identities(config)
    index = Index.open(_index_of(config, console))
    keys = config.model_dump(mode="json", include={"questions", "refusals", "max_passages", "test_fraction"})
    inputs = {"index": index.artifact.digest, **models}
    work = artifact.begin(config.out, "examples.write", keys, inputs, console=console)
    if work.state == "done":
        return show_result(console, work.directory, artifact.read(work.directory))
    with ExitStack() as stack:
        writer = stack.enter_context(_writer(config, console))
        reader: Answerer = writer
        if config.reader is not None:
            reader = stack.enter_context(open_model_writer(config.reader, config.device, config.dtype, console))
        written = writing.write_pairs(
            index, writer, work.directory, console, count=config.questions, max_passages=config.max_passages
        )
        verified, dropped = writing.verify_pairs(index, written, console)
        pairs = writing.check_answers(reader, verified, work.directory, console)
    dropped[writing.DISAGREES] = len(verified) - len(pairs)
    writing.require_pairs(pairs, dropped)
    facts: dict[str, Any] = {"written": sum(len(each or ()) for _, each in written), "kept": len(pairs)}
    facts["dropped"] = {reason: count for reason, count in dropped.most_common() if count}
    files = [work.directory / writing.TRAIN, work.directory / writing.TEST]
    parts = writing.split_pairs(pairs, config.test_fraction)
    for name, path, part in zip(("train", "test"), files, parts, strict=True):
        facts[name] = writing.write_rows(path, list(writing.example_rows(part, pairs, config.refusals)))
    writing.delete_progress(work.directory)
    rows = [(reason, f"{count:,}") for reason, count in facts["dropped"].items()]
    facts |= result_facts(_summary(facts), "Dropped questions", ("reason", "questions"), rows)
    made = work.finish(facts, files)
    console.note(
        f"Next: groundup finetune instruct {config.out / writing.TRAIN} --test {config.out / writing.TEST} "
        "--set application=answer --model MODEL --out DIR"
    )
    return show_result(console, config.out, made)


def _summary(facts: dict[str, Any]) -> str:
    sets = (
        f"{pluralize(facts[name]['answers'], 'answer')} and {pluralize(facts[name]['refusals'], 'refusal')} {purpose}"
        for name, purpose in (("train", "to train"), ("test", "to test"))
    )
    return f"{facts['kept']:,} of {facts['written']:,} questions kept; {', '.join(sets)}"


def _identities(config: ExamplesWriteConfig) -> dict[str, str]:
    """Return the identities of the writer and of the reader.

    Raises:
        ConfigError: There is no writer.
    """
    from groundup.hub.resolve import model_identity, resolve_model
    from groundup.retrieval.examples.writers import without_secrets

    reader = {} if config.reader is None else {"reader": model_identity(resolve_model(config.reader))}
    if config.server is None:
        if config.model is None:
            raise ConfigError(
                "no writer of questions", fix="Give --model MODEL, or --server URL with --server-model NAME."
            )
        return reader | {"writer": model_identity(resolve_model(config.model))}
    if not config.server_model:
        raise ConfigError(
            f"--server {without_secrets(config.server)} without a model",
            fix="Name a model of the server: --server-model NAME. GET /v1/models lists them.",
        )
    return reader | {"writer": f"{without_secrets(config.server)} {config.server_model}"}


def _index_of(config: ExamplesWriteConfig, console: Console) -> Path:
    """Return the index of the source. A folder or a corpus is indexed next to the output directory."""
    if (config.source / ARTIFACT).is_file() and artifact.read(config.source).stage == "index":
        return config.source
    out = config.out.with_name(f"{config.out.name}-index")
    index_command.run(index_command.IndexConfig(source=config.source, out=out), console=console)
    return out


def _writer(config: ExamplesWriteConfig, console: Console) -> AbstractContextManager[Writer]:
    from groundup.retrieval.examples.writers import open_model_writer, open_server_writer, without_secrets

    if config.server is None:
        assert config.model is not None
        return open_model_writer(config.model, config.device, config.dtype, console, base=config.base)
    console.note(f"The passages are sent to {without_secrets(config.server)}.")
    return nullcontext(open_server_writer(config.server, config.server_model or "", config.key_variable))
