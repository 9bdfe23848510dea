"""The library of C++ kernels, which is compiled once with the installed compiler and then cached.

The library is called through ctypes and does not include torch's headers. So the compilation takes seconds, whereas the
compilation of a torch extension takes about a minute.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from torch import Tensor

from groundup.core.files import cache_dir

_SOURCES = Path(__file__).parent / "native"
_FLAGS = ("-O3", "-fopenmp", "-shared", "-fPIC", "-std=c++17")
_WITHOUT_TILES = ("-mno-amx-tile", "-mno-amx-bf16", "-mno-amx-int8")
_COMPILERS = ("c++", "g++", "clang++")
# Instruction sets that the kernels require. They also use AVX-512, bf16, VNNI and AMX if the CPU supports them.
_REQUIRED_FLAGS = {"avx2", "fma", "f16c"}
_ROUNDING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@cache
def native_library() -> ctypes.CDLL | None:
    """Return the library of C++ kernels, and compile it if it is not cached.

    The result is None if the CPU or the operating system does not support the kernels, or if compilation fails.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS))), None)
    if compiler is None or not _cpu_flags() >= _REQUIRED_FLAGS:
        return None
    # A process must request AMX tiles from Linux. Some virtual machines report AMX but refuse the request.
    for flags in (_FLAGS, (*_FLAGS, *_WITHOUT_TILES)):
        try:
            library = ctypes.CDLL(str(_build(compiler, flags)))
        except (OSError, subprocess.SubprocessError):
            return None
        library.groundup_tiles_allowed.restype = ctypes.c_bool
        if library.groundup_tiles_allowed():
            return library
    return None


def multiplies_bf16(library: ctypes.CDLL) -> bool:
    """Return whether the CPU has instructions that multiply bf16 values.

    Without them, the kernels multiply the values as fp32, nearly as fast as fp32 matmuls. PyTorch's bf16 matmuls are
    then several times slower than its fp32 matmuls.
    """
    library.groundup_multiplies_bf16.restype = ctypes.c_bool
    return bool(library.groundup_multiplies_bf16())


def instruction_sets() -> list[str]:
    """Return the instruction sets of the CPU on which the rounding of matmuls depends, or [] if they are unknown."""
    flags = _cpu_flags()
    return [flag for flag in _ROUNDING_FLAGS if flag in flags]


def _cpu_flags() -> set[str]:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return set()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _build(compiler: str, flags: tuple[str, ...]) -> Path:
    """Return the library file for these sources, this compiler, its options and this CPU.

    It is compiled if it is not cached.

    The compiler writes to a temporary file, so an interrupted compilation does not leave an incomplete library.
    """
    sources = sorted(_SOURCES.iterdir())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    identity = hashlib.blake2b(repr((flags, sorted(_cpu_flags()))).encode() + version, digest_size=12)
    for source in sources:
        identity.update(source.read_bytes())
    directory = cache_dir() / "native"
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    library = directory / f"{identity.hexdigest()}.so"
    if library.is_file():
        return library
    if not os.access(directory, os.W_OK):  # The cache directory is not writable.
        library = Path(tempfile.mkdtemp(prefix="groundup-native-")) / library.name
    temporary = library.with_suffix(f".{os.getpid()}.tmp")
    try:
        compile_library(compiler, temporary, flags=flags)
        temporary.replace(library)
    finally:
        temporary.unlink(missing_ok=True)
    return library


def compile_library(compiler: str, library: Path, *, cpu: str = "native", flags: tuple[str, ...] = _FLAGS) -> None:
    """Compile the kernels.

    Args:
        compiler: The C++ compiler.
        library: File to write.
        cpu: CPU whose instructions are used, as a value of the compiler's option `-march`. Tests compile the kernels
            for CPUs that lack some of this CPU's instructions.
        flags: Other options of the compiler.

    Raises:
        subprocess.SubprocessError: The compilation failed.
    """
    units = [str(source) for source in sorted(_SOURCES.glob("*.cpp"))]
    command = [compiler, f"-march={cpu}", *flags, *units, "-o", str(library)]
    subprocess.run(command, capture_output=True, check=True, timeout=300)


def pointers_to(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    """Return a pointer to the data of each tensor, and a null pointer for each None.

    The tensors must stay allocated until the kernel returns.
    """
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def sizes_of(*sizes: int) -> list[ctypes.c_int64]:
    """Return sizes as ctypes integers."""
    return [ctypes.c_int64(size) for size in sizes]
