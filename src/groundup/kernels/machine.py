"""Measurement of the machine, and application of the execution settings to a model.

The settings are the device, the dtype, the number of threads, compilation, and C++ kernels.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.core.errors import ResourceError
from groundup.kernels.cache import compiling, mark_first_pass, use_kernel_cache, without_counting
from groundup.kernels.fp8 import require_fp8, use_fp8
from groundup.kernels.heap import keep_large_buffers
from groundup.kernels.kernel_choice import KernelChoice
from groundup.kernels.kernel_timing import choose_kernels, native_flops
from groundup.kernels.native_library import instruction_sets, multiplies_bf16, native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.model import ModelConfig, Operations, SequenceClassifier, Transformer, use_operations

ComputeDtype = Literal["float32", "bfloat16"]
_PEAK_SIZES = (1536, 2048)
_PEAK_SECONDS = 0.25
_READ_BYTES = 2**28  # more than the caches of most CPUs
_NUM_READS = 5
_NUM_TRIALS = 6  # The first trial of a dtype is slow because it also creates the kernels.
_DTYPES: dict[ComputeDtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Machine:
    """Execution settings. The settings are saved with a run, so that a resumed run uses the same settings.

    Attributes:
        device: "cpu", "cuda" or "mps".
        compute_dtype: The dtype of matmuls and activations: "bfloat16" if bf16 matmuls are faster than fp32 matmuls or
            if the C++ kernels are used, otherwise "float32". Weights are always fp32.
        compile: Whether to compile the layers with `torch.compile`.
        threads: Number of CPU threads. The number of threads determines the order of floating-point additions, so a run
            is reproducible only with the same number of threads.
        matmul_flops: Matmul throughput in FLOP/s, measured for matrices of medium size. The planner estimates the
            training time from it before it can measure training steps.
        native: Whether to use the C++ kernels of `native/`. If so, `torch.compile` is not used.
        fp8: Whether to use fp8 matmuls in the layers. On a CPU, fp8 is emulated.
        peak_flops: Sustained matmul throughput in FLOP/s: the maximum over several matrix sizes. MFU is relative to
            this value. If it is None, MFU is not reported.
        kernels: Kernel of each matmul of linear layers and MLPs if `native` is true. If None, all of them use the C++
            kernels.
        processor: Processor on which the rounding of matmuls depends: the name of the GPU, or the instruction sets of
            the CPU. It is "" if it is unknown.
    """

    device: str
    compute_dtype: ComputeDtype
    compile: bool
    threads: int
    matmul_flops: float
    native: bool = False
    fp8: bool = False
    peak_flops: float | None = None
    kernels: KernelChoice | None = None
    processor: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype that `compute_dtype` names."""
        return torch.bfloat16 if self.compute_dtype == "bfloat16" else torch.float32

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Machine:
        """Create the settings from the result of `to_json`."""
        kernels = record["kernels"]
        return cls(**dict(record) | {"kernels": KernelChoice.from_json(kernels) if kernels else None})

    def other_processor(self) -> str:
        """Return the processor of this machine if its rounding may differ from that of `processor`, otherwise "".

        If the processor of this machine cannot be determined, it is "unknown".
        """
        here = _processor(self.device)
        return (here or "unknown") if self.processor and here != self.processor else ""

    def describe(self) -> list[tuple[str, str]]:
        """Return rows for the table of the training plan, with the columns name and value."""
        measured = self.kernels if self.kernels and self.kernels.choices else None
        return [("matmul kernels", f"{measured.describe()} (measured)")] if measured else []


def measure_machine(
    *,
    threads: int | None = None,
    native: bool = True,
    compile: bool = True,
    fp8: bool = False,
    dtype: ComputeDtype | None = None,
    frozen: bool = False,
) -> Machine:
    """Measure the machine and choose execution settings.

    The function tests each feature by using it, because some CPUs only emulate bf16 and some compiler installations are
    incomplete.

    Args:
        threads: Number of CPU threads. By default, PyTorch uses one thread per core.
        native: Whether to use the C++ kernels if they work.
        compile: Whether to use `torch.compile` if it works and if the C++ kernels are not used.
        fp8: Whether to use fp8 matmuls.
        dtype: Compute dtype. The default is the dtype with the fastest matmuls.
        frozen: Whether some weights are frozen. PyTorch computes their matmuls, so the C++ kernels are then used only
            if bf16 is PyTorch's fastest dtype.

    Returns:
        The execution settings.

    Raises:
        ResourceError: `fp8` is true, but this machine does not support fp8.
    """
    if fp8:
        require_fp8()
    device = default_device()
    if threads is not None:
        torch.set_num_threads(threads)
    fastest, speed = fastest_dtype(device, only=dtype)
    peak = max(speed, sustained_flops(device, _DTYPES[fastest]))
    library = native_library() if native and device == "cpu" else None
    kernels = None
    if library is not None and (fastest == "float32" or not multiplies_bf16(library)):
        # The choice is not measured: a run with the same seed would then use another dtype if other load disturbed the
        # measurement. A step takes about as long as with torch.compile in fp32 (benchmarks/ablations.md), but the
        # kernels are compiled only once, whereas torch.compile compiles each architecture.
        if frozen or fp8 or dtype == "float32":
            library = None
        else:
            flops = native_flops(library)
            fastest, speed, peak = "bfloat16", max(speed, flops), max(peak, flops)
    if library is not None and not multiplies_bf16(library):  # PyTorch only emulates bf16 matmuls.
        kernels = KernelChoice(plain="native")
    compiled = compile and library is None and _can_compile(device)
    threads = torch.get_num_threads()
    native = library is not None
    return Machine(device, fastest, compiled, threads, speed, native, fp8, peak, kernels, _processor(device))


def with_kernels(machine: Machine, config: ModelConfig) -> Machine:
    """Return the machine with the fastest kernels for a model whose weights are all trained.

    If the machine does not use the C++ kernels, or if it uses them for all matmuls, it is returned unchanged.

    Args:
        machine: The machine.
        config: Architecture of the model.
    """
    library = native_library() if machine.native else None
    if library is None or machine.kernels is not None:
        return machine
    torch.set_num_threads(machine.threads)
    return replace(machine, kernels=choose_kernels(config, library, machine.matmul_flops))


def cast_for_inference(model: Transformer | SequenceClassifier, compute_dtype: ComputeDtype) -> None:
    """Cast the weights of a model to the compute dtype for inference, in place.

    Args:
        model: The model.
        compute_dtype: The dtype of weights and activations.
    """
    for parameter in model.parameters():  # Buffers are not cast, because the RoPE frequencies must stay in fp32.
        parameter.data = parameter.data.to(_DTYPES[compute_dtype])
    model.model.compute_dtype = _DTYPES[compute_dtype]


@contextmanager
def use_compute_dtype(model: Transformer | SequenceClassifier, compute_dtype: ComputeDtype) -> Iterator[None]:
    """Compute in another dtype within the context. The dtype of the weights does not change.

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
    """Return the dtype with the fastest matmuls on a device, and the matmul throughput of this dtype in FLOP/s.

    Args:
        device: "cpu", "cuda" or "mps".
        only: If given, measure and return only this dtype.
    """
    dtypes = _DTYPES if only is None else {only: _DTYPES[only]}
    # The trials alternate between the dtypes, so that other load on the machine affects all dtypes equally.
    trials = [{name: _matmul_flops(device, dtype) for name, dtype in dtypes.items()} for _ in range(_NUM_TRIALS)]
    speeds = {name: max(trial[name] for trial in trials) for name in dtypes}
    faster: ComputeDtype = "bfloat16" if speeds.get("bfloat16", 0) > 1.2 * speeds.get("float32", 0) else "float32"
    fastest = only or faster
    return fastest, speeds[fastest]


def inference_dtype(device: str | None) -> ComputeDtype:
    """Return the faster dtype for inference on a device; see `usable_device`."""
    return fastest_dtype(torch.device(usable_device(device)).type)[0]


def sustained_flops(device: str, dtype: torch.dtype) -> float:
    """Return the highest matmul throughput in FLOP/s over several large matrix sizes, measured for about 0.3 s.

    A matmul of 1,024 x 1,024 matrices is not large enough: it has a lower throughput than a training step, so MFU would
    exceed 1.

    Args:
        device: "cpu", "cuda" or "mps".
        dtype: The dtype of the matrices.
    """
    if device == "cuda":  # On a GPU, the matrices of `_matmul_flops` are large enough.
        return _matmul_flops(device, dtype)
    deadline = time.perf_counter() + _PEAK_SECONDS
    best = _square_flops(device, dtype, _PEAK_SIZES[0])
    while time.perf_counter() < deadline:
        best = max(best, *(_square_flops(device, dtype, size) for size in _PEAK_SIZES))
    return best


def cpu_matmul_flops() -> dict[str, float]:
    """Return the throughput of large matmuls on the CPU in FLOP/s, by dtype.

    If PyTorch emulates bf16 and there are C++ kernels, the throughput of bf16 is that of the kernels.
    """
    flops: dict[str, float] = {name: sustained_flops("cpu", dtype) for name, dtype in _DTYPES.items()}
    library = native_library()
    if library is not None and not multiplies_bf16(library):
        flops["bfloat16"] = max(flops["bfloat16"], native_flops(library))
    return flops


def read_bandwidth() -> float:
    """Return the read bandwidth of the memory in bytes/s, with torch's number of threads. It takes about 0.2 s."""
    values = torch.ones(_READ_BYTES // 4)
    best = 0.0
    for _ in range(_NUM_READS):
        started = time.perf_counter()
        values.sum().item()
        best = max(best, values.nbytes / (time.perf_counter() - started))
    return best


def default_device() -> str:
    """Return the device for computation: "cuda" or "mps" if available, otherwise "cpu"."""
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _processor(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    sets = instruction_sets() if device == "cpu" else []
    return f"CPU with {', '.join(sets)}" if sets else ""


def usable_device(name: str | None) -> str:
    """Return the name of a device after a check that torch can use the device.

    Args:
        name: name of the device. If None, a GPU is used if available, otherwise the CPU.

    Returns:
        The name of the device.

    Raises:
        ResourceError: torch cannot use the device.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Copy a number to the device and back, because only a computation shows whether the device works.
        torch.ones(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # The exception type depends on the device.
        message = str(error).strip().splitlines() or [type(error).__name__]
        raise ResourceError(
            f'device = "{name}": {message[0][:200]}',
            rule="this machine or this build of torch does not support it",
            fix=f"Omit the setting, or give one of: {', '.join(_devices())}.",
        ) from None
    return name


def _devices() -> list[str]:
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _can_compile(device: str) -> bool:
    use_kernel_cache()
    try:
        with compiling():
            torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(8, device=device))
    except Exception:  # A missing compiler, missing headers and an unsupported system raise different exceptions.
        return False
    return True


def _matmul_flops(device: str, dtype: torch.dtype) -> float:
    # On a GPU, the time of small matmuls would mostly be kernel launch overhead.
    size, times = (8192, 4) if device == "cuda" else (1024, 1)
    return _square_flops(device, dtype, size, times)


def _square_flops(device: str, dtype: torch.dtype, size: int, times: int = 1) -> float:
    a = torch.ones(size, size, dtype=dtype, device=device)
    a[0, 0].item()  # Wait until the device has created the matrix.
    started = time.perf_counter()
    for _ in range(times):
        product: Tensor = a @ a
    product[0, 0].item()
    return float(times * 2 * size**3 / (time.perf_counter() - started))


def prepare_model(model: Transformer | SequenceClassifier, machine: Machine) -> None:
    """Move a model to its device and apply the execution settings, in place.

    Args:
        model: The model.
        machine: The execution settings.

    Raises:
        ResourceError: The device, the C++ kernels or fp8 is not available on this machine.
    """
    if machine.device not in ("cpu", default_device()):
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
        operations = NativeOperations(_require_library(), machine.kernels)
    if machine.fp8:
        if machine.device == "cuda":  # A resumed run may have been started on another machine.
            require_fp8()
        use_fp8(model, emulate=machine.device != "cuda")
    operations.recompute = not all(parameter.requires_grad for parameter in model.parameters())
    if machine.compile:
        use_kernel_cache()
        mark_first_pass(model)
        for layer in model.model.layers:  # All layers share the code that is compiled for the first layer.
            layer.compile(dynamic=False)
        # On CPUs, only the logits of labeled tokens are computed, and batches of fine-tuning differ in their number.
        dynamic = machine.device == "cpu"
        operations.nll_and_residual = torch.compile(operations.nll_and_residual, dynamic=dynamic)  # type: ignore[method-assign]
    use_operations(model, operations)


def _require_library() -> ctypes.CDLL:
    library = native_library()
    if library is None:
        raise ResourceError(
            "C++ kernels: not available",
            rule="a run resumes with the C++ kernels with which it was started",
            fix="Resume it on a CPU with AVX2 and a C++ compiler, or start a new run with another --out.",
        )
    return library


@contextmanager
def eager_mode() -> Iterator[None]:
    """Run a compiled model in eager mode within the context, so that torch does not recompile it for new shapes.

    Evaluation and sampling use other shapes than training.
    """
    with torch.compiler.set_stance("force_eager"), without_counting():
        yield
