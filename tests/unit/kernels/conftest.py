"""The C++ kernels with emulated AMX instructions."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from groundup.kernels import native_library as native_library_module


@pytest.fixture(scope="session")
def emulated_amx(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels compiled for AMX, with the tile instructions in C++."""
    library = tmp_path_factory.mktemp("emulated") / "kernels.so"
    native = Path(native_library_module.__file__).parent / "native"
    sources = [str(native / name) for name in ("decoder.cpp", "layers.cpp", "muon.cpp", "weight_gradients.cpp")]
    tiles = Path(__file__).parent / "emulated_tiles.h"
    flags = [flag for flag in native_library_module._FLAGS if flag != "-O3"]
    subprocess.run(["c++", "-O1", *flags, "-include", str(tiles), *sources, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
