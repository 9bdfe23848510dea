"""`groundup evaluate`: how well a model predicts held-out text, beside compressors; and what it writes.

Choices among answers, a classifier, and the answers of a model that chats are measured on tables of examples: see
`_evaluate_examples`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.commands._closing import closing, say_result
from groundup.commands._evaluate_examples import (
    evaluate_answers,
    evaluate_choices,
    evaluate_labels,
    task_of,
)
from groundup.core.artifact import ARTIFACT, Artifact, begin, read, read_intact
from groundup.core.config import Config, nearest, setting
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.files import atomic_file, shell_quoted, write_json
from groundup.data import ConversationRules, table_identity

if TYPE_CHECKING:
    from groundup.data import TokenLists
    from groundup.evaluation.bpb import BitsPerByte
    from groundup.hub.resolve import OpenedModel
    from groundup.model import Transformer

EXAMPLE = "groundup evaluate runs/notes --data another.txt"


class EvaluateConfig(Config):
    """What to score, and beside whom."""

    model: Path = setting(help="model directory, or a run (its newest language model)", positional=True)
    out: Path | None = setting(None, help="directory for the report; default: beside the model", flag=True)
    data: Path | None = setting(None, help="texts, or examples, to score instead of held-out text", flag=True)
    measure: Literal["text", "answers", "labels", "choices"] | None = setting(
        None, help="default: labels of a classifier, choices or answers of a table that has them, else text", flag=True
    )
    corpus: Path | None = setting(None, help="corpus with held-out text; default: the run's", flag=True)
    tokens: Path | None = setting(None, help="token shards, where there is no corpus", flag=True)
    max_bytes: int = setting(8_000_000, help="score at most about this much held-out text", gt=0)
    compressors: bool = setting(True, help="compare with xz and PPMd that have read the training text")
    compressors_read: int = setting(64_000_000, help="at most about this much of it, in bytes", gt=0)
    samples: int = setting(3, help="texts to let the model write", flag=True, ge=0)
    batch_size: int = setting(16, help="windows to score at a time", gt=0)
    seed: int = setting(0, help="for samples and intervals", flag=True, ge=0)
    text: str | None = setting(None, help='column of a table with the text, or a template like "{title}: {body}"')
    label: str | None = setting(None, help="of labelled data: column with the label")
    separator: str | None = setting(None, help='what stands between labels in a cell, e.g. ";"; lists need none')
    device: str | None = setting(None, help="cpu, cuda, ...; by default a GPU where there is one", flag=True)
    dtype: Literal["float32", "bfloat16"] | None = setting(
        None, help="data type to compute in; default: bfloat16 where it is faster and the score agrees with float32"
    )
    columns: ConversationRules = setting(ConversationRules(), help="where the conversations of a table are")


def run(config: EvaluateConfig, *, console: Console | None = None) -> Artifact:
    """Score, compare, sample, and leave `report.json` and `report.md`.

    Raises:
        DataError: no model, or no text to score.
        ConfigError: nothing says which text to score.
    """
    from groundup.data.texts import scored_texts, split_texts, texts_identity
    from groundup.evaluation.bpb import bits_per_byte, encode_texts, model_nll
    from groundup.evaluation.comparison import compare
    from groundup.evaluation.compressors import score_compressors
    from groundup.evaluation.precision import choose_precision
    from groundup.evaluation.report import Report
    from groundup.evaluation.samples import write_samples
    from groundup.hub.resolve import model_identity, open_model, resolve_model, stage_output
    from groundup.inference import Engine
    from groundup.kernels import computing_in

    console = console or Console()
    if config.data is not None and not config.data.exists():
        raise _absent(config.data)
    measure = config.measure or _measure(config)
    if measure != "text":
        return _on_examples(config, measure, console)
    directory = resolve_model(config.model)
    given = config.corpus or config.tokens
    known = given or stage_output(config.model, "collect") or stage_output(config.model, "tokenize")
    inputs = {"model": model_identity(directory)}
    if known is not None:
        inputs["text"] = read_intact(known).digest
    if config.data is not None:
        texts = scored_texts(config.data, config.text, console)
        inputs["data"] = texts_identity(config.data)
    elif known is not None:
        texts = split_texts(known, "validation", config.max_bytes)
    else:
        raise ConfigError(
            f"{config.model}: no held-out text",
            rule="a model outside of a run has no corpus beside it",
            fix="Say what to score: --data FILE, or --corpus DIR.",
        )
    source = str(config.data or "held-out text")
    settings = config.model_dump(include={"max_bytes", "compressors", "compressors_read", "samples", "seed"})
    settings |= config.model_dump(include={"text", "dtype"}, exclude_none=True)
    work = begin(config.out or _default_out(config, directory), "evaluate", settings, inputs, console=console)
    if work.state == "done":
        return say_result(console, work.directory, read(work.directory))

    held_out = list(texts)
    opened = open_model(directory, device=config.device)
    model, tokenizer = opened.model, opened.tokenizer
    documents = encode_texts(held_out, tokenizer)
    precision = choose_precision(model, documents, bos_id=tokenizer.bos_id, chosen=config.dtype)
    if precision.sentence:
        console.note(precision.sentence)

    def scored(label: str, opened: OpenedModel, documents: TokenLists) -> BitsPerByte:
        total = int(documents.lengths.sum())
        with console.progress(label, total, "tokens") as progress, computing_in(opened.model, precision.dtype):
            return bits_per_byte(
                model_nll(opened.model),
                documents,
                context_length=opened.model.config.context_length,
                bos_id=opened.tokenizer.bos_id,
                batch_size=config.batch_size,
                device=opened.model.lm_head.weight.device,
                advance=progress.advance,
            )

    score = scored("scoring", opened, documents)
    began_from = None
    if (base := _base_of(directory)) is not None:
        before = open_model(base, device=config.device)
        began_from = compare(score, scored("scoring its base", before, encode_texts(held_out, before.tokenizer)))
    train = list(split_texts(known, "train", config.compressors_read)) if config.compressors and known else []
    table = []
    if train:
        with console.progress("compressing", 100, "%") as progress:
            table = score_compressors(train, held_out, advance=lambda share: progress.advance(100 * share))
    with Engine(model, tokenizer, stop_ids=opened.stop_ids) as engine:
        samples = write_samples(engine, documents, config.samples, seed=config.seed)

    report = Report(
        bpb=score.interval(seed=config.seed),
        scored={
            "source": source,
            "documents": score.documents,
            "tokens": score.tokens,
            "bytes": score.bytes,
            **precision.to_json(),
        },
        compressors=table,
        compressors_read=sum(len(text.encode()) for text in train),
        samples=samples,
        model=_model_facts(directory, model),
        began_from=began_from,
        next_commands=(
            f"groundup chat {shell_quoted(directory)}"
            if tokenizer.chat_template
            else f'groundup generate {shell_quoted(directory)} "Once upon a time"',
            f"groundup evaluate {shell_quoted(directory)} --data FILE.txt",
        ),
    )
    files = [work.directory / "report.json", work.directory / "report.md"]
    write_json(files[0], report.to_json())
    with atomic_file(files[1]) as temporary:
        temporary.write_text(report.to_markdown(), encoding="utf-8", errors="backslashreplace")
    for number, sample in enumerate(samples, 1):
        console.sample(f"sample {number}" + (f", after {sample.prompt!r}" if sample.prompt else ""), sample.text)
    columns = ("who", "bits per byte", "better")
    facts = closing(report.summary(), f"Bits per byte of {source}", columns, report.rows())
    made = work.finish(facts | report.facts(), files)
    return say_result(console, work.directory, made)


def _absent(data: Path) -> DataError:
    beside = [path.name for path in data.parent.iterdir()] if data.parent.is_dir() else []
    match = nearest(data.name, beside)
    return DataError(
        f"--data {data}: no such file or folder",
        rule="what is scored is a file of texts or examples, or a folder of them",
        fix=f"Did you mean {data.parent / match}?" if match else "Check the path.",
    )


def _measure(config: EvaluateConfig) -> Literal["text", "answers", "labels", "choices"]:
    from groundup.hub.resolve import has_chat_template, is_classifier, resolve_model

    if is_classifier(config.model) or config.label is not None:
        return "labels"
    if config.data is None:
        return "text"
    if config.columns != ConversationRules():
        return "answers"
    return task_of(config.data, chats=has_chat_template(resolve_model(config.model))) or "text"


def _on_examples(
    config: EvaluateConfig, measure: Literal["answers", "labels", "choices"], console: Console
) -> Artifact:
    from groundup.data.labelled import LabelRules
    from groundup.hub.resolve import model_identity, resolve_classifier, resolve_model

    if config.data is None:
        raise ConfigError(
            f"{config.model}: no examples given",
            rule=f"{measure} are measured on a table of examples",
            fix="Give one: --data FILE.csv.",
        )
    directory = resolve_classifier(config.model) if measure == "labels" else resolve_model(config.model)
    chosen = {"seed", "text", "label", "separator", "columns"}
    settings = config.model_dump(mode="json", include=chosen) | {"measure": measure}
    settings |= config.model_dump(include={"dtype"}, exclude_none=True)
    inputs = {"model": model_identity(directory), "data": table_identity(config.data)}
    work = begin(config.out or _default_out(config, directory), "evaluate", settings, inputs, console=console)
    if work.state == "done":
        return say_result(console, work.directory, read(work.directory))
    common: dict[str, Any] = {"seed": config.seed, "device": config.device, "work": work, "console": console}
    if measure == "labels":
        rules = LabelRules(config.text, config.label, separator=config.separator)
        return evaluate_labels(directory, config.data, rules, **common)
    if measure == "choices":
        return evaluate_choices(directory, config.data, config.text, config.dtype, **common)
    return evaluate_answers(directory, config.data, config.columns, config.dtype, **common)


def _base_of(directory: Path) -> Path | None:
    """The model that the pretraining of this one went on from, if it still lies where it lay, as it was."""
    from groundup.hub.resolve import model_identity, resolve_model

    made = read(directory) if (directory / ARTIFACT).is_file() else None
    if made is None or made.stage != "pretrain" or "base" not in made.facts:
        return None
    try:
        base = resolve_model(Path(made.facts["base"]))
    except DataError:
        return None
    return base if model_identity(base) == made.inputs.get("model") else None


def _default_out(config: EvaluateConfig, directory: Path) -> Path:
    """Beside the model. A run's own report is that of its base on its held-out text; others get names of their own."""
    base = not (directory / ARTIFACT).is_file() or read(directory).stage == "pretrain"
    parts = ["report", *([] if base else [directory.name]), *([config.data.stem] if config.data else [])]
    return (config.model if directory != config.model else directory.resolve().parent) / "-".join(parts)


def _model_facts(directory: Path, model: Transformer) -> dict[str, Any]:
    """Size and shape, and what the stage that made it wrote down."""
    facts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **model.config.to_json(),
    }
    if (directory / ARTIFACT).is_file():
        made = read(directory)
        facts |= {"made_by": made.stage, "training_seconds": made.seconds, "finished_at": made.finished_at}
        facts |= {name: value for name, value in made.facts.items() if isinstance(value, int | float | str)}
    return facts
