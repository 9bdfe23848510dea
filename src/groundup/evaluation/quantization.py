"""Quality of quantized weights: bits per byte, KL divergence and top-1 agreement with a reference on the same tokens.

Shape letters: T: sequence length, V: vocabulary size.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.files import cache_dir, read_json, shell_quoted, write_json
from groundup.core.types import InferenceDtype, well_formed
from groundup.data.texts import general_texts, read_texts
from groundup.evaluation.verification.round_trip import pages
from groundup.hub.loading import OpenedModel
from groundup.hub.resolve import run_text
from groundup.hub.weight_files import is_gguf
from groundup.inference.runner import NativeRunner, Runner, SequenceStep, TorchRunner, make_runner, runner_format
from groundup.kernels.native_decoder import unsupported_reason
from groundup.model.flops import matmul_parameters
from groundup.model.quantized import QuantizedWeight

WINDOW_TOKENS = 512
_ROWS = 64  # positions whose log-probabilities are in memory at a time
_CHARACTERS_PER_TOKEN = 12  # upper limit, so that a long text is not tokenized completely
_SHORT_TOKENS = 256
_MAX_SHORT_PARAMETERS = 400_000_000  # with this size, 256 tokens in float32 take about 2 s on 2 cores

LogitsFunction = Callable[[Sequence[int]], Tensor]
"""Maps the token ids of a text, (T,), to the logits after each of them, (T, V)."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Tokens of a text in non-overlapping windows, each of which begins with BOS.

    Attributes:
        ids: Token ids of each window.
        bytes: Number of UTF-8 bytes of the text that the windows contain.
        source: Name of the text.
    """

    ids: tuple[tuple[int, ...], ...]
    bytes: int
    source: str

    @property
    def tokens(self) -> int:
        """Number of scored tokens, which are all tokens except BOS."""
        return sum(len(window) - 1 for window in self.ids)


@dataclass(slots=True)
class Quality:
    """Predictions of a model, compared with the predictions of a reference on the same tokens.

    Attributes:
        name: Name of the model, such as its weight format.
        reference: Name of the reference.
        tokens: Number of scored tokens.
        bytes: Number of UTF-8 bytes of the text.
        nll: Negative log-likelihood of the text in nats.
        reference_nll: The same, computed by the reference.
        kl_sum: Kullback-Leibler divergence from the reference in nats, summed over the tokens.
        agreed: Number of tokens for which model and reference have the same most likely token.
    """

    name: str
    reference: str
    tokens: int = 0
    bytes: int = 0
    nll: float = 0.0
    reference_nll: float = 0.0
    kl_sum: float = 0.0
    agreed: int = 0

    @property
    def bpb(self) -> float:
        """Bits per byte of the model."""
        return self.nll / (math.log(2) * self.bytes)

    @property
    def reference_bpb(self) -> float:
        """Bits per byte of the reference."""
        return self.reference_nll / (math.log(2) * self.bytes)

    @property
    def kl(self) -> float:
        """Mean Kullback-Leibler divergence from the reference, in nats per token."""
        return self.kl_sum / self.tokens

    @property
    def agreement(self) -> float:
        """Share of the tokens for which model and reference have the same most likely token."""
        return self.agreed / self.tokens

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the derived values as JSON values."""
        derived = {"bpb": self.bpb, "reference_bpb": self.reference_bpb, "kl": self.kl, "agreement": self.agreement}
        return asdict(self) | derived

    def add(self, reference_TV: Tensor, logits_TV: Tensor, next_ids_T: Tensor) -> None:
        """Add the predictions of some tokens.

        Args:
            reference_TV: Logits of the reference before each of the tokens.
            logits_TV: Logits of the model before each of the tokens.
            next_ids_T: The tokens.
        """
        width = min(reference_TV.shape[1], logits_TV.shape[1])  # an engine may pad the vocabulary
        for begin in range(0, len(next_ids_T), _ROWS):
            rows = slice(begin, begin + _ROWS)
            p_TV = reference_TV[rows, :width].float().log_softmax(-1)
            q_TV = logits_TV[rows, :width].float().log_softmax(-1)
            next_T1 = next_ids_T[rows, None]
            self.reference_nll -= float(p_TV.gather(1, next_T1).double().sum())
            self.nll -= float(q_TV.gather(1, next_T1).double().sum())
            self.agreed += int((p_TV.argmax(-1) == q_TV.argmax(-1)).sum())
            self.kl_sum += float((p_TV.exp() * (p_TV - q_TV)).sum(-1).double().sum())
        self.tokens += len(next_ids_T)


def text_windows(texts: Iterable[str], opened: OpenedModel, *, max_tokens: int, source: str) -> Windows:
    """Split texts into windows of at most 512 tokens.

    Args:
        texts: Texts, which are joined by blank lines.
        opened: The model, for its tokenizer and context length.
        max_tokens: Maximum number of scored tokens.
        source: Name of the texts.
    """
    tokenizer = opened.tokenizer
    text, max_characters = "", max_tokens * _CHARACTERS_PER_TOKEN
    for each in texts:
        text += f"{each}\n\n"
        if len(text) > max_characters:
            break
    ids = tokenizer.encode(well_formed(text[:max_characters].strip()))[:max_tokens]
    step = min(WINDOW_TOKENS, opened.model.config.context_length) - 1
    windows = tuple((tokenizer.bos_id, *ids[begin : begin + step]) for begin in range(0, len(ids), step))
    return Windows(windows, len(tokenizer.decode(ids).encode()), source)


def runner_logits(runner: Runner) -> LogitsFunction:
    """Return a function that computes logits with the runner that also generates text."""

    def logits(ids: Sequence[int]) -> Tensor:
        rows = _AllRows(len(ids))
        cache = runner.open(ids, len(ids), shared=False)
        try:
            runner.reserve(cache, len(ids))
            with torch.inference_mode():
                (failed,) = runner.forward([SequenceStep(cache, ids, scored=False, reader=rows)])
        finally:
            runner.close(cache)
        if isinstance(failed, Exception):
            raise failed
        return torch.cat(rows.pieces)

    return logits


class _AllRows:
    """A `RowReader` that keeps the logits of all tokens."""

    reads_states = False

    def __init__(self, length: int) -> None:
        self.position = 0
        self.end = length
        self.pieces: list[Tensor] = []

    def read(self, rows: Tensor) -> None:
        """Keep a copy of the logits of the next tokens."""
        self.pieces.append(rows.clone())
        self.position += len(rows)


def compare_quality(
    reference: tuple[str, LogitsFunction],
    others: Mapping[str, LogitsFunction],
    windows: Windows,
    *,
    advance: Callable[[float], object] = lambda _: None,
) -> list[Quality]:
    """Compare models with a reference on the same tokens. Only the logits of one window are in memory at a time.

    Args:
        reference: Name and logits of the reference.
        others: Maps the name of each other model to its logits.
        windows: The tokens.
        advance: Callback for progress, called with the number of tokens of each window.

    Returns:
        The quality of each other model.
    """
    name, reference_logits = reference
    found = [Quality(other, name, bytes=windows.bytes) for other in others]
    for ids in windows.ids:
        next_ids = torch.tensor(ids[1:])
        expected_TV = reference_logits(ids[:-1])
        for quality in found:
            quality.add(expected_TV, others[quality.name](ids[:-1]), next_ids)
        advance(len(next_ids))
    return found


def quality_sentence(quality: Quality, source: str) -> str:
    """Return the quality in one sentence."""
    return (
        f"{quality.name} weights on {quality.tokens:,} tokens of {source}: {quality.bpb:.3f} bits per byte "
        f"({quality.reference}: {quality.reference_bpb:.3f}), same top token for {quality.agreement:.1%} of them, "
        f"KL divergence {quality.kl:.2g} nats."
    )


QUALITY_COLUMNS = ("weights", "reference", "tokens", "bits per byte", "of reference", "difference", "top-1", "KL, nats")


def quality_row(quality: Quality) -> tuple[str, ...]:
    """Return the table row of a quality. The columns are `QUALITY_COLUMNS`."""
    return (
        quality.name,
        quality.reference,
        f"{quality.tokens:,}",
        f"{quality.bpb:.4f}",
        f"{quality.reference_bpb:.4f}",
        f"{quality.bpb / quality.reference_bpb - 1:+.2%}",
        f"{quality.agreement:.2%}",
        f"{quality.kl:.2g}",
    )


def measure_quality(
    opened: OpenedModel, dtypes: Sequence[InferenceDtype], texts: Path | None, max_tokens: int, console: Console
) -> tuple[list[Quality], str]:
    """Compare weight formats with float32, and quantized formats also with bfloat16.

    Args:
        opened: The model, with the weights before quantization.
        dtypes: Weight formats.
        texts: File or folder with texts. Default: see `default_windows`.
        max_tokens: Maximum number of scored tokens.
        console: Console that shows progress.

    Returns:
        The quality of each format, and the name of the text.

    Raises:
        DataError: `texts` does not exist or does not contain text.
        ResourceError: The machine does not support a format.
    """
    if texts is None:
        windows = default_windows(opened, max_tokens)
    else:
        windows = text_windows(read_texts(texts), opened, max_tokens=max_tokens, source=str(texts))
    if not windows.tokens:
        raise DataError(f"{windows.source}: no text", fix="Give a text with --texts.")
    if is_gguf(opened.directory):
        console.warn(f"{opened.directory} may be quantized already: the reference has the weights of this file.")
    exact = ("float32", runner_logits(TorchRunner(opened.model)))
    made = [make_runner(opened.model, each) for each in dtypes]
    runners: dict[str, Runner] = {runner_format(each, opened.model): each for each in made}
    half = runners.get("bfloat16")
    if half is None and unsupported_reason(opened.model) is None:
        half = make_runner(opened.model, "bfloat16")
    others: dict[str, LogitsFunction] = {
        name: runner_logits(runner) for name, runner in runners.items() if name != "float32"
    }
    quantized = {name: logits for name, logits in others.items() if name != "bfloat16"}
    comparisons: list[tuple[tuple[str, LogitsFunction], Mapping[str, LogitsFunction]]] = [(exact, others)]
    if half is not None and quantized:
        comparisons.append((("bfloat16", runner_logits(half)), quantized))
    total = windows.tokens * len(comparisons)
    with console.progress("scoring", total, "tokens") as bar:
        found = [
            each
            for reference, chosen in comparisons
            for each in compare_quality(reference, chosen, windows, advance=bar.advance)
        ]
    return found, windows.source


def default_windows(opened: OpenedModel, max_tokens: int) -> Windows:
    """Return windows of the validation set of the model's run, or of Python's language reference if there is no run."""
    corpus = run_text(opened.directory)
    texts, source = pages(), "Python's language reference"
    if corpus is not None:
        texts, source = general_texts(corpus, max_tokens * _CHARACTERS_PER_TOKEN), "the validation set"
    return text_windows(texts, opened, max_tokens=max_tokens, source=source)


def quality_note(opened: OpenedModel, runner: Runner) -> str:
    """Return the quality of quantized weights in one line. It is measured once per model and format, on 256 tokens.

    The measurement takes at most about 2 s on 2 cores. For larger models, and for models whose files are quantized, the
    line names the command that measures the quality.

    Args:
        opened: The model, with the weights before quantization.
        runner: The runner of the model, with the quantized weights.
    """
    assert isinstance(runner, NativeRunner)
    weights = runner.decoder.weights
    file = _quality_file(opened.directory, weights)
    small = matmul_parameters(opened.model.config) <= _MAX_SHORT_PARAMETERS
    dense = not any(isinstance(module, QuantizedWeight) for module in opened.model.modules())
    if small and dense and not file.is_file():
        windows = default_windows(opened, _SHORT_TOKENS)
        others: dict[str, LogitsFunction] = {weights: runner_logits(runner)}
        (quality,) = compare_quality(("float32", runner_logits(TorchRunner(opened.model))), others, windows)
        value = {"sentence": quality_sentence(quality, windows.source), **quality.to_json()}
        with suppress(OSError):  # the cache directory is not writable
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, value)
    return stored_quality(opened.directory, weights)


def stored_quality(directory: Path, weights: str) -> str:
    """Return the stored quality of a model in one line, or the command that measures it if it has not been measured.

    Args:
        directory: Directory of the model.
        weights: Weight format.
    """
    command = f"groundup bench {shell_quoted(directory)} --quality --dtype {weights}"
    with suppress(Exception):  # a missing or damaged file
        return f"{read_json(_quality_file(directory, weights))['sentence']} More tokens: {command}"
    return f"To measure the quality of {weights} weights: {command}"


def _quality_file(directory: Path, weights: str) -> Path:
    """Return the file for the quality of a model. Its name depends on the model's files and on groundup's version."""
    from groundup import __version__

    paths = sorted(each for each in directory.iterdir() if each.is_file()) if directory.is_dir() else [directory]
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = json.dumps([str(directory.resolve()), files, weights, __version__])
    return cache_dir() / "quality" / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}.json"
