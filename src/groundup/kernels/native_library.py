"""The compiled kernels of `native/`: built once with the compiler that is there, kept with the user's other caches.

A plain library behind ctypes, without torch's headers: it compiles in seconds where an extension takes a minute.
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
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=c++17")
_COMPILERS = ("c++", "g++", "clang++")
# What the kernels are written in; AMX tiles come on top where the processor has them.
_NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "fma"}


@cache
def native_library() -> ctypes.CDLL | None:
    """The library, built if need be; None where this processor or system cannot run it, or no compiler builds it."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS))), None)
    if compiler is None or not _processor_flags() >= _NEEDED:
        return None
    try:
        library = ctypes.CDLL(str(_built(compiler)))
    except (OSError, subprocess.SubprocessError):
        return None
    # Linux hands the tile registers out on request; a virtual machine may show them and refuse them.
    library.groundup_tiles_allowed.restype = ctypes.c_bool
    return library if library.groundup_tiles_allowed() else None


def _processor_flags() -> set[str]:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return set()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _built(compiler: str) -> Path:
    """The library file of these sources, this compiler and this processor.

    It gets its name when it is whole: a process that is killed on the way leaves nothing that a later one would load.
    """
    sources = sorted(_SOURCES.iterdir())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    identity = hashlib.blake2b(repr((_FLAGS, sorted(_processor_flags()))).encode() + version, digest_size=12)
    for source in sources:
        identity.update(source.read_bytes())
    directory = cache_dir() / "native"
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    library = directory / f"{identity.hexdigest()}.so"
    if library.is_file():
        return library
    if not os.access(directory, os.W_OK):  # a cache that cannot be written
        library = Path(tempfile.mkdtemp(prefix="groundup-native-")) / library.name
    temporary = library.with_suffix(f".{os.getpid()}.tmp")
    units = [str(source) for source in sources if source.suffix == ".cpp"]
    try:
        subprocess.run([compiler, *_FLAGS, *units, "-o", str(temporary)], capture_output=True, check=True, timeout=300)
        temporary.replace(library)
    finally:
        temporary.unlink(missing_ok=True)
    return library


def pointers_to(*tensors: Tensor | None) -> list[ctypes.c_void_p]:
    """Where the values of each begin, as kernels want it; the tensors must live until those have read them."""
    return [ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in tensors]


def sizes_of(*sizes: int) -> list[ctypes.c_int64]:
    """The sizes as kernels want them."""
    return [ctypes.c_int64(size) for size in sizes]
