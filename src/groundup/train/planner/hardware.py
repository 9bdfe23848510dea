"""Hardware of an estimate: this machine, or rented GPUs with their throughput and price."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from groundup.core.errors import ConfigError
from groundup.model import ModelConfig
from groundup.model.flops import flops_per_token, fused_training_bytes, matmul_parameters, training_bytes

UTILIZATION = 0.4  # model FLOPs utilization (MFU) of GPUs, usual in published training runs
_GPU_SPREAD = 0.25  # relative error of the time on GPUs, for which nothing is measured


@dataclass(frozen=True, slots=True)
class Hardware:
    """Hardware that trains a model.

    Attributes:
        name: Name of the CPU or GPU.
        flops: Training throughput in FLOP/s, summed over all devices.
        count: Number of devices.
        price: Lowest and highest price in dollars per device and hour, or None for this machine.
        memory_bytes: Memory per device, or None if unknown.
        spread: Relative error of the time of a run.
        basis: How the throughput is known.
        counts_attention: Whether the throughput includes the FLOPs of attention. Published utilizations usually
            count 6 FLOPs per matmul parameter and token.
        native: Whether training uses the C++ kernels, which need less memory.
        memory_offset: Measured minus estimated peak memory of the measured steps, in bytes. It corrects the estimate.
    """

    name: str
    flops: float
    count: int
    price: tuple[float, float] | None
    memory_bytes: int | None
    spread: float
    basis: str
    counts_attention: bool = True
    native: bool = False
    memory_offset: int = 0

    def flops_per_token(self, config: ModelConfig) -> float:
        """Return the training FLOPs per token to which `flops` refers."""
        return flops_per_token(config) if self.counts_attention else 6.0 * matmul_parameters(config)

    def seconds(self, config: ModelConfig, tokens: float) -> float:
        """Return the time of a training run in seconds."""
        return tokens * self.flops_per_token(config) / self.flops

    def tokens(self, config: ModelConfig, seconds: float) -> float:
        """Return the number of tokens on which a model can be trained in a time."""
        return seconds * self.flops / self.flops_per_token(config)

    def peak_bytes(self, config: ModelConfig, rows: int, *, accumulated: bool = False) -> int:
        """Return the peak memory of training on one device in bytes.

        Args:
            config: Architecture.
            rows: Number of rows per micro-batch.
            accumulated: Whether a step has several micro-batches.
        """
        if self.native:
            return fused_training_bytes(config, rows, accumulated=accumulated) + self.memory_offset
        return training_bytes(config, rows) + self.memory_offset

    def cost(self, seconds: float) -> tuple[float, float] | None:
        """Return the lowest and highest cost of a run in dollars, or None for this machine."""
        if self.price is None:
            return None
        hours = seconds / 3600 * self.count
        return hours * self.price[0], hours * self.price[1]


@cache
def gpu_kinds() -> dict[str, dict[str, Any]]:
    """Return the table of GPUs by kind."""
    return tomllib.loads(resources.files(__package__).joinpath("gpus.toml").read_text("utf-8"))


def rented_gpus(kind: str, count: int, *, price: float | None = None, utilization: float | None = None) -> Hardware:
    """Return rented GPUs.

    Args:
        kind: Key of `gpus.toml`.
        count: Number of GPUs.
        price: Dollars per GPU and hour, or None for the usual prices.
        utilization: Model FLOPs utilization (MFU), or None for the usual one.

    Raises:
        ConfigError: The kind is unknown.
    """
    known = gpu_kinds()
    if kind.lower() not in known:
        raise ConfigError(f"unknown GPU '{kind}'", fix=f"Use one of: {', '.join(known)}.")
    gpu = known[kind.lower()]
    share = utilization or gpu.get("utilization", UTILIZATION)
    low, high = (price, price) if price is not None else gpu["price"]
    priced = "your price" if price is not None else f"prices of {gpu['date']}"
    basis = f"{gpu['flops'] / 1e12:,.0f} TFLOP/s in bf16 at {share:.1%} utilization, {priced}"
    memory = round(gpu["memory_gb"] * 1e9)
    flops = count * share * gpu["flops"]
    return Hardware(gpu["name"], flops, count, (low, high), memory, _GPU_SPREAD, basis, counts_attention=False)
