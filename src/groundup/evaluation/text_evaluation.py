"""Evaluation of a language model on text.

The report contains its bits per byte, a comparison with compressors and with its base model, and generated samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.core.artifact import ARTIFACT, read
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError
from groundup.core.files import shell_quoted
from groundup.data import TokenLists
from groundup.data.texts import split_texts
from groundup.evaluation.bpb import BitsPerByte, bits_per_byte, compare_bits_per_byte, encode_texts, model_nll
from groundup.evaluation.compressors import score_compressors
from groundup.evaluation.precision import choose_precision
from groundup.evaluation.report import Report
from groundup.evaluation.samples import write_samples
from groundup.hub.loading import OpenedModel, open_model
from groundup.hub.resolve import model_identity, resolve_model
from groundup.inference import Engine
from groundup.kernels import ComputeDtype, use_compute_dtype
from groundup.model import Transformer


@dataclass(frozen=True, slots=True)
class TextEvaluationOptions:
    """Options of an evaluation on text.

    Attributes:
        compressor_bytes: maximum number of bytes of training text that the compressors are given; 0: the model is not
            compared with compressors.
        samples: number of texts to generate.
        batch_size: number of windows per batch.
        seed: seed of the generated samples and of the bootstrap.
        device: device to compute on; default: a GPU if available.
        dtype: data type to compute in; default: bfloat16 if it is faster and barely changes the score, or float32.
    """

    compressor_bytes: int = 64_000_000
    samples: int = 3
    batch_size: int = 16
    seed: int = 0
    device: str | None = None
    dtype: ComputeDtype | None = None


def require_corpus(model: Path, corpus: Path | None) -> Path:
    """Return the corpus with held-out text.

    Raises:
        ConfigError: the user did not give a corpus, and the model is not part of a run with a corpus.
    """
    if corpus is None:
        raise ConfigError(f"{model}: no held-out text", fix="Give the text to score: --data FILE, or --corpus DIR.")
    return corpus


def evaluate_text(
    directory: Path,
    texts: Sequence[str],
    source: str,
    corpus: Path | None,
    options: TextEvaluationOptions,
    console: Console,
) -> Report:
    """Score held-out texts with a model, and compare the model with its base model and with compressors.

    The comparison with the base model is made only if the model was trained by continued pretraining.

    Args:
        directory: directory of the model.
        texts: held-out texts.
        source: name of the texts for the report.
        corpus: corpus or token shards from which the compressors get the training text, or None to skip the comparison
            with compressors.
        options: options of the evaluation.
        console: console that prints notes and progress.

    Returns:
        The report.
    """
    opened = open_model(directory, device=options.device)
    model, tokenizer = opened.model, opened.tokenizer
    documents = encode_texts(texts, tokenizer)
    precision = choose_precision(model, documents, bos_id=tokenizer.bos_id, chosen=options.dtype)
    if precision.sentence:
        console.note(precision.sentence)
    score = _scored("scoring", opened, documents, precision.dtype, options, console)
    began_from = None
    if (base := _base_of(directory)) is not None:
        before = open_model(base, device=options.device)
        encoded = encode_texts(texts, before.tokenizer)
        began_from = compare_bits_per_byte(
            score, _scored("scoring its base", before, encoded, precision.dtype, options, console)
        )
    train = list(split_texts(corpus, "train", options.compressor_bytes)) if options.compressor_bytes and corpus else []
    compressors = []
    if train:
        with console.progress("compressing", 100, "%") as progress:
            compressors = score_compressors(train, texts, advance=lambda share: progress.advance(100 * share))
    with Engine.of(opened) as engine:
        samples = write_samples(engine, documents, options.samples, seed=options.seed)
    for number, sample in enumerate(samples, 1):
        console.sample(f"sample {number}" + (f", after {sample.prompt!r}" if sample.prompt else ""), sample.text)
    counts = {"documents": score.documents, "tokens": score.tokens, "bytes": score.bytes}
    place = shell_quoted(directory)
    use = f"groundup chat {place}" if tokenizer.chat_template else f'groundup generate {place} "Once upon a time"'
    return Report(
        bpb=score.interval(seed=options.seed),
        scored={"source": source, **counts, **precision.to_json()},
        compressors=compressors,
        compressors_read=sum(len(text.encode()) for text in train),
        samples=samples,
        model=_model_facts(directory, model),
        began_from=began_from,
        next_commands=(use, f"groundup evaluate {place} --data FILE.txt"),
    )


def _scored(
    label: str,
    opened: OpenedModel,
    documents: TokenLists,
    dtype: ComputeDtype,
    options: TextEvaluationOptions,
    console: Console,
) -> BitsPerByte:
    total = int(documents.lengths.sum())
    with console.progress(label, total, "tokens") as progress, use_compute_dtype(opened.model, dtype):
        return bits_per_byte(
            model_nll(opened.model),
            documents,
            context_length=opened.model.config.context_length,
            bos_id=opened.tokenizer.bos_id,
            batch_size=options.batch_size,
            device=opened.model.device,
            advance=progress.advance,
        )


def _base_of(directory: Path) -> Path | None:
    """Return the directory of the base model if the model was trained by continued pretraining.

    The function returns None if the model was trained from scratch, or if the base model was changed or deleted.
    """
    made = read(directory) if (directory / ARTIFACT).is_file() else None
    if made is None or made.stage != "pretrain" or "base" not in made.facts:
        return None
    try:
        base = resolve_model(Path(made.facts["base"]))
    except DataError:
        return None
    return base if model_identity(base) == made.inputs.get("model") else None


def _model_facts(directory: Path, model: Transformer) -> dict[str, Any]:
    """Return the number of parameters, the configuration, and the facts that training recorded in the artifact."""
    facts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **model.config.to_json(),
    }
    if (directory / ARTIFACT).is_file():
        made = read(directory)
        facts |= {"made_by": made.stage, "training_seconds": made.seconds, "finished_at": made.finished_at}
        facts |= {name: value for name, value in made.facts.items() if isinstance(value, int | float | str)}
    return facts
