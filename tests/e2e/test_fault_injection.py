"""Random damage of files, random kills and full disks are detected, or have no effect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.name == "nt", reason="commands run in forks")
def test_no_fault_is_silent(tmp_path: Path) -> None:
    injection = [sys.executable, str(ROOT / "tools" / "fault_injection.py"), str(tmp_path / "faults")]
    done = subprocess.run([*injection, "--faults", "31", "--seed", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    outcomes = [line.split()[1] for line in lines if line[:4].strip().isdigit()]
    assert len(outcomes) == 31
    # Damaged files are detected by checksum, so the number does not depend on chance.
    assert outcomes.count("detected") + outcomes.count("recovered") >= 15, done.stdout
