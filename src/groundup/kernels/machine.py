"""Measurement of the machine, and preparation of a model for it: device, dtype, threads, compilation, kernels."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.core.errors import ResourceError
from groundup.kernels.cache import compiling, mark_first_pass, use_kernel_cache, without_counting
from groundup.kernels.fp8 import require_fp8, use_fp8
from groundup.kernels.heap import keep_large_buffers
from groundup.kernels.native_library import native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.model import Operations, SequenceClassifier, Transformer, use_operations

ComputeDtype = Literal["float32", "bfloat16"]
_PEAK_SIZES = (1536, 2048)
_PEAK_SECONDS = 0.25
_NUM_TRIALS = 6  # the first trial of a dtype includes the creation of kernels
_DTYPES: dict[ComputeDtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Machine:
    """Execution settings. They are saved with a run, so a resumed run uses the same ones.

    Attributes:
        device: "cpu", "cuda" or "mps".
        compute_dtype: "bfloat16" if its matmuls are faster than in fp32, otherwise "float32". Weights are fp32.
        compile: Whether layers use `torch.compile`.
        threads: Number of CPU threads. It determines the reduction order, so equal results need the same number.
        product_flops: Matmul throughput for a medium size in FLOP/s, for estimates before training steps are measured.
        native: Whether to use the C++ kernels of `native/`; `torch.compile` is then not used.
        fp8: Whether layers use fp8 matmuls; emulated on a CPU.
        peak_flops: Sustained matmul throughput in FLOP/s, the best of several sizes. It is the reference of MFU. None
            for a run started by an earlier release, whose reference was too low; its MFU is not reported.
    """

    device: str
    compute_dtype: ComputeDtype
    compile: bool
    threads: int
    product_flops: float
    native: bool = False
    fp8: bool = False
    peak_flops: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        """`compute_dtype` as a torch dtype."""
        return torch.bfloat16 if self.compute_dtype == "bfloat16" else torch.float32

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Machine:
        """Return the settings that `to_json` describes."""
        return cls(**record)


def measure_machine(
    *,
    threads: int | None = None,
    native: bool = True,
    compile: bool = True,
    fp8: bool = False,
    dtype: ComputeDtype | None = None,
) -> Machine:
    """Measure the machine and choose execution settings.

    Features are tried, not looked up: some CPUs only emulate bf16, and some compiler installations are incomplete.

    Args:
        threads: Number of CPU threads. Default: PyTorch's default, one per core.
        native: Use the C++ kernels if they work and bf16 is fastest.
        compile: Otherwise use `torch.compile` if it works.
        fp8: Use fp8 matmuls.
        dtype: Compute dtype. Default: the fastest.

    Returns:
        The settings.

    Raises:
        ResourceError: `fp8` is set, but fp8 is not available.
    """
    if fp8:
        require_fp8()
    device = _device()
    if threads is not None:
        torch.set_num_threads(threads)
    fastest, speed = fastest_dtype(device, only=dtype)
    native = native and device == "cpu" and fastest == "bfloat16" and native_library() is not None
    compiled = compile and not native and _can_compile(device)
    peak = max(speed, sustained_flops(device, _DTYPES[fastest]))
    return Machine(device, fastest, compiled, torch.get_num_threads(), speed, native, fp8, peak)


def cast_for_inference(model: Transformer | SequenceClassifier, compute_dtype: ComputeDtype) -> None:
    """Cast the weights of a model to its compute dtype for inference, in place.

    Args:
        model: The model.
        compute_dtype: The dtype of weights and activations.
    """
    for parameter in model.parameters():  # not buffers: RoPE frequencies need fp32
        parameter.data = parameter.data.to(_DTYPES[compute_dtype])
    model.model.compute_dtype = _DTYPES[compute_dtype]


@contextmanager
def use_compute_dtype(model: Transformer | SequenceClassifier, compute_dtype: ComputeDtype) -> Iterator[None]:
    """Use another compute dtype within the context. Weights are not changed.

    Args:
        model: The model.
        compute_dtype: The dtype of activations.
    """
    before = model.model.compute_dtype
    model.model.compute_dtype = _DTYPES[compute_dtype]
    try:
        yield
    finally:
        model.model.compute_dtype = before


def fastest_dtype(device: str, *, only: ComputeDtype | None = None) -> tuple[ComputeDtype, float]:
    """Return the dtype with the fastest matmuls on a device, and its throughput in FLOP/s.

    Args:
        device: "cpu", "cuda" or "mps".
        only: Measure and return this dtype. Default: the fastest.
    """
    dtypes = _DTYPES if only is None else {only: _DTYPES[only]}
    # Dtypes take turns, so that other load on the machine affects all of them.
    trials = [{name: _matmul_flops(device, dtype) for name, dtype in dtypes.items()} for _ in range(_NUM_TRIALS)]
    speeds = {name: max(trial[name] for trial in trials) for name in dtypes}
    faster: ComputeDtype = "bfloat16" if speeds.get("bfloat16", 0) > 1.2 * speeds.get("float32", 0) else "float32"
    fastest = only or faster
    return fastest, speeds[fastest]


def sustained_flops(device: str, dtype: torch.dtype) -> float:
    """Return the best matmul throughput in FLOP/s for several large sizes, measured for about 0.3 s.

    Matmuls of 1,024 x 1,024 have a lower throughput than training steps, which gave an MFU above 1.

    Args:
        device: "cpu", "cuda" or "mps".
        dtype: The dtype of the matrices.
    """
    if device == "cuda":  # the matmuls of `_matmul_flops` are large there
        return _matmul_flops(device, dtype)
    deadline = time.perf_counter() + _PEAK_SECONDS
    best = _square_flops(device, dtype, _PEAK_SIZES[0])
    while time.perf_counter() < deadline:
        best = max(best, *(_square_flops(device, dtype, size) for size in _PEAK_SIZES))
    return best


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _can_compile(device: str) -> bool:
    use_kernel_cache()
    try:
        with compiling():
            torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(8, device=device))
    except Exception:  # a missing compiler, missing headers and an unsupported system raise different errors
        return False
    return True


def _matmul_flops(device: str, dtype: torch.dtype) -> float:
    # Small matmuls on a GPU would measure the kernel launch overhead.
    size, times = (8192, 4) if device == "cuda" else (1024, 1)
    return _square_flops(device, dtype, size, times)


def _square_flops(device: str, dtype: torch.dtype, size: int, times: int = 1) -> float:
    a = torch.ones(size, size, dtype=dtype, device=device)
    a[0, 0].item()  # waits for the device
    started = time.perf_counter()
    for _ in range(times):
        product: Tensor = a @ a
    product[0, 0].item()
    return float(times * 2 * size**3 / (time.perf_counter() - started))


def prepare_model(model: Transformer | SequenceClassifier, machine: Machine) -> None:
    """Move a model to its device and apply the execution settings, in place.

    Args:
        model: The model.
        machine: The settings.

    Raises:
        ResourceError: This machine has no such device, C++ kernels or fp8.
    """
    if machine.device not in ("cpu", _device()):
        raise ResourceError(
            f"device {machine.device}: not available",
            rule="a run resumes on the type of device on which it was started",
            fix="Resume it on a machine with this device, or start a new run with another --out.",
        )
    torch.set_num_threads(machine.threads)
    keep_large_buffers()
    model.to(machine.device)
    model.model.compute_dtype = machine.dtype
    operations = Operations()
    if machine.native:
        operations = NativeOperations(_require_library())
    if machine.fp8:
        if machine.device == "cuda":  # a resumed run may be from another machine
            require_fp8()
        use_fp8(model, emulate=machine.device != "cuda")
    operations.recompute = not all(parameter.requires_grad for parameter in model.parameters())
    if machine.compile:
        use_kernel_cache()
        mark_first_pass(model)
        for layer in model.model.layers:  # all layers share the code that is compiled for the first one
            layer.compile(dynamic=False)
        operations.nll_and_residual = torch.compile(operations.nll_and_residual, dynamic=False)  # type: ignore[method-assign]
    use_operations(model, operations)


def _require_library() -> ctypes.CDLL:
    library = native_library()
    if library is None:
        raise ResourceError(
            "C++ kernels: not available",
            rule="a run resumes with the C++ kernels with which it was started",
            fix="Resume it on a CPU with AVX-512 bf16 and a C++ compiler, or start a new run with another --out.",
        )
    return library


@contextmanager
def eager_mode() -> Iterator[None]:
    """Run a compiled model in eager mode within the context: new shapes in evaluation and samples are not compiled."""
    with torch.compiler.set_stance("force_eager"), without_counting():
        yield
