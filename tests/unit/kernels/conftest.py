"""The C++ kernels with emulated AMX instructions, and for CPUs that lack some of this CPU's instructions."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from groundup.kernels.native_library import _FLAGS, compile_library


@pytest.fixture(scope="session")
def emulated_amx(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels compiled for AMX, with the tile instructions in C++."""
    library = tmp_path_factory.mktemp("emulated") / "kernels.so"
    tiles = Path(__file__).parent / "emulated_tiles.h"
    compile_library("c++", library, flags=(*_FLAGS, "-O1", "-include", str(tiles)))
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="session")
def without_vnni(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels compiled for AVX-512 without bf16 and VNNI, as on Intel's Skylake."""
    library = tmp_path_factory.mktemp("skylake") / "kernels.so"
    compile_library("c++", library, cpu="skylake-avx512", flags=(*_FLAGS, "-O1"))
    return ctypes.CDLL(str(library))
