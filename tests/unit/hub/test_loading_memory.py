"""Peak memory of loading: a model that barely fits must not be held twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groundup.hub import save_model
from groundup.model import ModelConfig, Transformer

PROGRAM = """
import re, sys
from pathlib import Path
import torch
from groundup.hub import load_model
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
torch.ones(8).bfloat16().float()
before = peak()
model = load_model(Path(sys.argv[1]), dtype=getattr(torch, sys.argv[2]))
print(peak() - before)
print(sum(float(parameter.sum()) for parameter in model.parameters()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peak_memory_is_the_size_of_the_weights(family: str, tmp_path: Path) -> None:
    """Converted from bf16 to fp32, and as stored; GPT-2's matrices are transposed in both cases."""
    model = Transformer(ModelConfig(family, 512, 16, 8, 8, 64, 2048, 2000, 64, tie_embeddings=True)).bfloat16()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    save_model(tmp_path, model, bos_id=0, eos_id=0)
    expected = sum(float(parameter.detach().float().sum()) for parameter in model.parameters())

    def grown(dtype: str) -> int:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), dtype]
        peak, total = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert torch.isclose(torch.tensor(float(total)), torch.tensor(expected), rtol=0.05, atol=5.0)
        return int(peak)

    room = 30_000_000  # Imports of torch.
    assert grown("float32") < 1.1 * 4 * parameters + room
    assert grown("bfloat16") < (1.1 if family == "gpt2" else 0) * 2 * parameters + room
