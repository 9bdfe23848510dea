"""Prediction of inference speed and memory from the shape of a model and from measured rates of the machine.

The time of a forward pass is the time to read the weights and the KV cache plus the time of the matmuls. `groundup
bench` stores each prediction with the measured value, and later predictions are multiplied by the median ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import torch

from groundup.core.environment import OtherLoad, cpu_name
from groundup.core.files import cache_dir, read_json, write_json
from groundup.core.history import History
from groundup.core.plural import pluralize
from groundup.kernels.machine import cpu_matmul_flops, read_bandwidth
from groundup.kernels.memory import memory_bytes
from groundup.kernels.native_decoder import unsupported_config_reason
from groundup.kernels.weight_packing import BYTES_PER_WEIGHT
from groundup.model import ModelConfig
from groundup.model.flops import (
    IDLE_BYTES,
    cache_bytes,
    inference_flops_per_token,
    matmul_parameters,
    parameter_count,
)

Format = Literal["float32", "bfloat16", "int8", "int4"]
Figure = Literal["prefill", "decode", "decode_batch_8"]
PREFILL_TOKENS, DEPTH, BATCH_SIZE = 512, 512, 8  # of the figures
_FIGURES: tuple[Figure, ...] = ("prefill", "decode", "decode_batch_8")
_CACHE_TOKENS = 1000  # for which the size of the KV cache is reported
_MAX_AGE_SECONDS = 30 * 24 * 3600
_HISTORY = History("speed/predictions.jsonl", max_records=200)
_CORRECTED_BY = 5  # most recent measurements
_BYTES_PER_WEIGHT: dict[Format, float] = {"float32": 4, **cast("dict[Format, float]", BYTES_PER_WEIGHT)}
# Throughput of the matmuls relative to square matmuls by PyTorch, in bf16 for the compiled kernels and in fp32 for
# PyTorch, and share of the read bandwidth. They fit SmolLM2-135M on 2 cores of an AMD EPYC. Other machines need the
# corrections.
_MATMUL_EFFICIENCY: Mapping[Format, float] = {"float32": 0.8, "bfloat16": 1.0, "int8": 1.5, "int4": 1.4}
_READ_EFFICIENCY: Mapping[Format, float] = {"float32": 0.4, "bfloat16": 0.8, "int8": 0.8, "int4": 0.7}
_SECONDS_PER_LAYER = 1e-5  # of a forward pass, in addition to matmuls


@dataclass(frozen=True, slots=True)
class MachineRates:
    """Measured rates of this machine.

    Attributes:
        cpu: Name of the CPU.
        threads: Number of CPU threads.
        read_bytes: Read bandwidth of the memory, in bytes/s.
        flops: Throughput of large matmuls in FLOP/s by dtype, see `groundup.kernels.machine.cpu_matmul_flops`.
        measured_at: Time of the measurement in seconds since the epoch.
        busy: Whether other processes used the CPU during the measurement, so that the rates are too low.
    """

    cpu: str
    threads: int
    read_bytes: float
    flops: dict[str, float]
    measured_at: float
    busy: bool = False

    @property
    def key(self) -> str:
        """Name of the machine in the history."""
        return f"{self.cpu}, {pluralize(self.threads, 'thread')}"

    @property
    def sentence(self) -> str:
        """The rates in one line."""
        day = datetime.fromtimestamp(self.measured_at, UTC).date()
        flops = self.flops["bfloat16"] / 1e12
        return f"{self.key}: reads {self.read_bytes / 1e9:.1f} GB/s, {flops:.2f} TFLOP/s in bf16, " + (
            "measured while other processes used the CPU, so the figures are too low"
            if self.busy
            else f"measured {day}"
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted speed and memory of a model with one weight format.

    Attributes:
        format: Weight format.
        prefill: Tokens/s of a prompt of 512 tokens.
        decode: Tokens/s of one request at a context of 512 tokens.
        decode_batch_8: Tokens/s of 8 such requests together.
        weights: Memory of the weights in bytes.
        cache_per_1k: Memory of the KV cache for 1,000 tokens in bytes.
        needed: Memory of the process in bytes for a sequence of 1,000 tokens.
        available: Memory of the machine in bytes, or None if it is unknown.
        corrections: Measured divided by predicted value in earlier benchmarks, by which the figures are multiplied.
    """

    format: Format
    prefill: float
    decode: float
    decode_batch_8: float
    weights: int
    cache_per_1k: int
    needed: int
    available: int | None
    corrections: dict[str, float]

    @property
    def fits(self) -> bool:
        """Whether the memory of the machine suffices."""
        return self.available is None or self.needed <= self.available

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as JSON values."""
        return asdict(self) | {"fits": self.fits}


def machine_rates() -> MachineRates:
    """Return the rates of this machine with torch's number of threads; see `_measured_rates`."""
    return _measured_rates(cpu_name(), torch.get_num_threads())


@cache
def _measured_rates(cpu: str, threads: int) -> MachineRates:
    """Return the rates of this machine. They are measured in about a second, and stored for 30 days.

    Rates that were measured while other processes used the CPU are not stored.
    """
    file = cache_dir() / "speed" / "machine.json"
    stored = _stored_rates(file)
    known = stored.get(f"{cpu}, {pluralize(threads, 'thread')}")
    with suppress(TypeError):  # no entry, or one of another release
        rates = MachineRates(**(known or {}))
        if time.time() - rates.measured_at < _MAX_AGE_SECONDS:
            return rates
    load = OtherLoad()
    rates = MachineRates(cpu, threads, read_bandwidth(), cpu_matmul_flops(), time.time(), load.busy)
    if not rates.busy:
        with suppress(OSError):  # the cache directory is not writable
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, stored | {rates.key: asdict(rates)})
    return rates


def _stored_rates(file: Path) -> dict[str, Any]:
    """Return the stored rates of each machine. A missing or damaged file contains none, and is written again."""
    with suppress(Exception):
        return dict(read_json(file))
    return {}


def predict_formats(config: ModelConfig, rates: MachineRates) -> list[Prediction]:
    """Predict speed and memory for each weight format with which this machine can compute a model.

    Args:
        config: Config of the model.
        rates: Rates of the machine.
    """
    formats: tuple[Format, ...] = ("bfloat16", "int8", "int4") if unsupported_config_reason(config) is None else ()
    history = read_history()
    return [predict_speed(config, each, rates, history) for each in (*formats, "float32")]


def predict_speed(
    config: ModelConfig, weights: Format, rates: MachineRates, history: Sequence[Mapping[str, Any]] = ()
) -> Prediction:
    """Predict speed and memory.

    Args:
        config: Config of the model.
        weights: Weight format.
        rates: Rates of the machine.
        history: Earlier predictions and measurements, see `read_history`.
    """
    flops = rates.flops["float32" if weights == "float32" else "bfloat16"] * _MATMUL_EFFICIENCY[weights]
    bandwidth = rates.read_bytes * _READ_EFFICIENCY[weights]
    cache = cache_bytes(config, 1, "float32" if weights == "float32" else "bfloat16")
    read_weights = _weight_bytes(config, weights, matmul_parameters(config)) / bandwidth

    def seconds(rows: int, depth: float) -> float:
        """Return the time of a pass that computes `rows` tokens of different sequences at a context of `depth`."""
        compute = rows * inference_flops_per_token(config, max(1, round(2 * depth))) / flops
        return read_weights + rows * depth * cache / bandwidth + compute + config.n_layers * _SECONDS_PER_LAYER

    depth = min(DEPTH, config.context_length)
    prompt = min(PREFILL_TOKENS, config.context_length)
    compute = prompt * inference_flops_per_token(config, prompt) / flops
    plain = {
        "prefill": prompt / (read_weights + compute),
        # A decode step by PyTorch always has 8 rows.
        "decode": 1 / seconds(BATCH_SIZE if weights == "float32" else 1, depth),
        "decode_batch_8": BATCH_SIZE / seconds(BATCH_SIZE, depth),
    }
    corrections = _corrections(history, rates.key, weights)
    weight_memory = round(_weight_bytes(config, weights, parameter_count(config)))
    per_1k = _CACHE_TOKENS * cache
    return Prediction(
        format=weights,
        **{figure: value * corrections.get(figure, 1.0) for figure, value in plain.items()},
        weights=weight_memory,
        cache_per_1k=per_1k,
        needed=weight_memory + per_1k + IDLE_BYTES,
        available=memory_bytes("cpu"),
        corrections=corrections,
    )


def read_history() -> list[dict[str, Any]]:
    """Return the predictions that benchmarks on this machine compared with measurements, the oldest first."""
    return _HISTORY.read()


def speed_facts(config: ModelConfig) -> dict[str, Any]:
    """Return rates of the machine, predictions for each weight format, and earlier comparisons, as JSON values.

    Args:
        config: Config of the model.
    """
    rates = machine_rates()
    predictions = [prediction.to_json() for prediction in predict_formats(config, rates)]
    history = [each for each in read_history() if each.get("machine") == rates.key]
    return {"machine": asdict(rates), "sentence": rates.sentence, "formats": predictions, "history": history}


def remember(rates: MachineRates, model: str, prediction: Prediction, measured: Mapping[str, float]) -> None:
    """Store predicted and measured figures.

    Args:
        rates: Rates of the machine.
        model: Name of the model.
        prediction: The prediction.
        measured: The measured figures, by the name of the attribute of `Prediction`.
    """
    _HISTORY.append(
        *(
            {
                "machine": rates.key,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "model": model,
                "format": prediction.format,
                "figure": figure,
                "predicted": getattr(prediction, figure),
                "uncorrected": getattr(prediction, figure) / prediction.corrections.get(figure, 1.0),
                "measured": value,
            }
            for figure, value in measured.items()
        )
    )


def _corrections(history: Sequence[Mapping[str, Any]], machine: str, weights: Format) -> dict[str, float]:
    """Return the median ratio of measured to uncorrected predicted values of each figure."""
    found: dict[str, float] = {}
    for figure in _FIGURES:
        names = {"machine": machine, "format": weights, "figure": figure}
        matching = [each for each in history if all(each.get(key) == value for key, value in names.items())]
        with suppress(KeyError, TypeError, ZeroDivisionError):  # entries of another release
            ratios = [each["measured"] / each["uncorrected"] for each in matching[-_CORRECTED_BY:]]
            if ratios:
                found[figure] = statistics.median(ratios)
    return found


def _weight_bytes(config: ModelConfig, weights: Format, parameters: int) -> float:
    """Return the size of some of the parameters, which include the head."""
    outer = config.vocab_size * config.dim
    if parameters > matmul_parameters(config) and not config.tie_embeddings:
        outer *= 2
    # The embeddings and the head of an int4 model are int8.
    outer_bytes = _BYTES_PER_WEIGHT["int8" if weights == "int4" else weights]
    return outer * outer_bytes + (parameters - outer) * _BYTES_PER_WEIGHT[weights]
