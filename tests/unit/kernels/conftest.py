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


def _compiled_for(cpu: str, directory: Path) -> ctypes.CDLL:
    compile_library("c++", directory / "kernels.so", cpu=cpu, flags=(*_FLAGS, "-O1"))
    return ctypes.CDLL(str(directory / "kernels.so"))


@pytest.fixture(scope="session")
def without_vnni(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels for AVX-512 without bf16 and VNNI."""
    return _compiled_for("skylake-avx512", tmp_path_factory.mktemp("skylake"))


@pytest.fixture(scope="session")
def avx2(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels for AVX2, FMA and F16C."""
    return _compiled_for("haswell", tmp_path_factory.mktemp("haswell"))
