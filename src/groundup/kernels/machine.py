"""What the machine has, and how a model is put on it: dtype, threads, allocation, compilation."""

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
from groundup.kernels.cache import compiling, mark_first_pass, not_counted, use_kernel_cache
from groundup.kernels.fp8 import require_fp8, use_fp8
from groundup.kernels.heap import keep_large_buffers
from groundup.kernels.native_library import native_library
from groundup.kernels.native_operations import NativeOperations
from groundup.model import Operations, SequenceClassifier, Transformer, use_operations

ComputeDtype = Literal["float32", "bfloat16"]
_PEAK_SIZES = (1536, 2048)
_PEAK_SECONDS = 0.25
_LOOKS = 6  # the first one of a dtype makes its kernels
_DTYPES: dict[ComputeDtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Machine:
    """How to compute here. Saved with a run: a resumed run computes as it began.

    Attributes:
        device: "cpu", "cuda" or "mps".
        compute_dtype: "bfloat16" where its products are faster than fp32's, else "float32". Weights stay fp32.
        compile: whether layers go through `torch.compile`.
        threads: CPU threads; sums are split by thread, so equal results need an equal number.
        product_flops: FLOP/s of one matrix product of medium size, for estimates before real steps are measured.
        native: whether the kernels of `native/` compute; then there is nothing left to compile.
        fp8: whether the products of the layers are computed in fp8; on a CPU that is emulated.
        peak_flops: Sustained matmul throughput in FLOP/s, the best of several sizes: the reference of MFU. None for a
            run begun by an earlier release, whose reference was too low; its MFU is not reported.
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
        """`compute_dtype` as torch's."""
        return torch.bfloat16 if self.compute_dtype == "bfloat16" else torch.float32

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Machine:
        """From what `to_json` gave."""
        return cls(**record)


def measure_machine(
    *,
    threads: int | None = None,
    native: bool = True,
    compile: bool = True,
    fp8: bool = False,
    dtype: ComputeDtype | None = None,
) -> Machine:
    """Look at the machine. Feature flags lie (some CPUs emulate bf16) and compilers are half installed: try them.

    Args:
        threads: CPU threads to use; None leaves torch's choice, one a core.
        native: use our own kernels on a CPU where they are the fastest; the result says whether they run.
        compile: else try torch's compiler, which makes a kernel for every shape; the result says whether it works.
        fp8: compute the products of the layers in fp8.
        dtype: compute in this dtype; None: in the faster one.

    Raises:
        ResourceError: no fp8 here.
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


def keep_for_reading(model: Transformer | SequenceClassifier, compute_dtype: ComputeDtype) -> None:
    """Keep the weights of a model that is not trained in the dtype that it is to compute in, in place."""
    for parameter in model.parameters():  # not the frequencies of positions, which need their precision
        parameter.data = parameter.data.to(_DTYPES[compute_dtype])
    model.model.compute_dtype = _DTYPES[compute_dtype]


@contextmanager
def computing_in(model: Transformer | SequenceClassifier, compute_dtype: ComputeDtype) -> Iterator[None]:
    """Compute in a dtype for a while; the weights stay as they are."""
    before = model.model.compute_dtype
    model.model.compute_dtype = _DTYPES[compute_dtype]
    try:
        yield
    finally:
        model.model.compute_dtype = before


def fastest_dtype(device: str, *, only: ComputeDtype | None = None) -> tuple[ComputeDtype, float]:
    """The dtype whose matrix products are the fastest on a device, and their FLOP/s there.

    Args:
        only: the dtype that is used, whatever its speed; None: the fastest.
    """
    dtypes = _DTYPES if only is None else {only: _DTYPES[only]}
    # In turns: what else the machine does falls on both.
    looks = [{name: _product_flops(device, dtype) for name, dtype in dtypes.items()} for _ in range(_LOOKS)]
    speeds = {name: max(look[name] for look in looks) for name in dtypes}
    faster: ComputeDtype = "bfloat16" if speeds.get("bfloat16", 0) > 1.2 * speeds.get("float32", 0) else "float32"
    fastest = only or faster
    return fastest, speeds[fastest]


def sustained_flops(device: str, dtype: torch.dtype) -> float:
    """Return the best matmul throughput in FLOP/s over several large products, measured for about 0.3 s.

    A product of 1,024 x 1,024 stays below what training steps sustain: its throughput as reference gave an MFU above 1.
    """
    if device == "cuda":  # the products of `_product_flops` are large there
        return _product_flops(device, dtype)
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
    except Exception:  # no compiler, no headers, an unsupported system: each raises its own
        return False
    return True


def _product_flops(device: str, dtype: torch.dtype) -> float:
    # On a GPU a small product is over before the next one can be asked for: what is measured is the asking.
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


def place(model: Transformer | SequenceClassifier, machine: Machine) -> None:
    """Put `model` on the machine, in place.

    Raises:
        ResourceError: the run began on a device, with kernels or in fp8, and this machine lacks that.
    """
    if machine.device not in ("cpu", _device()):
        raise ResourceError(
            f"device {machine.device}: not here",
            rule="a run goes on as it began, on the kind of device that it was begun on",
            fix="Go on where there is one, or start in a new --out directory.",
        )
    torch.set_num_threads(machine.threads)
    keep_large_buffers()
    model.to(machine.device)
    model.model.compute_dtype = machine.dtype
    operations = Operations()
    if machine.native:
        operations = NativeOperations(_needed_library())
    if machine.fp8:
        if machine.device == "cuda":  # a run that goes on may have begun elsewhere
            require_fp8()
        use_fp8(model, emulate=machine.device != "cuda")
    operations.recompute = not all(parameter.requires_grad for parameter in model.parameters())
    if machine.compile:
        use_kernel_cache()
        mark_first_pass(model)
        for layer in model.model.layers:  # one layer is compiled, its code serves them all
            layer.compile(dynamic=False)
        operations.nll_and_residual = torch.compile(operations.nll_and_residual, dynamic=False)  # type: ignore[method-assign]
    use_operations(model, operations)


def _needed_library() -> ctypes.CDLL:
    library = native_library()
    if library is None:
        raise ResourceError(
            "compiled kernels: none that run here",
            rule="a run goes on as it began, with the kernels that were built for its machine",
            fix="Go on where it began (AVX-512 bf16 and a C++ compiler), or start in a new --out directory.",
        )
    return library


@contextmanager
def eagerly() -> Iterator[None]:
    """Run a compiled model without compilation: for evaluation and samples, whose shapes would be compiled anew."""
    with torch.compiler.set_stance("force_eager"), not_counted():
        yield
