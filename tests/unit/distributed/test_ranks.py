"""Any number of ranks and any parallelization train the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

HELPER = Path(__file__).parent / "helpers" / "train_on_ranks.py"
TESTS = Path(__file__).parents[2]  # directory in which the helper finds python_topics


def launch(script: list[str], ranks: int | None, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a script in one process, or on ranks started by torchrun."""
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **changes}
    launcher = [] if ranks is None else ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
    return subprocess.run(
        [sys.executable, *launcher, *script], env=environment, capture_output=True, text=True, timeout=240
    )


def train(directory: Path, name: str, ranks: int | None, cases: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    plan, out = directory / f"{name}.cases.json", directory / f"{name}.json"
    plan.write_text(json.dumps(cases))
    done = launch([str(HELPER), str(out), str(plan)], ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, dict[str, list[float]]] = json.loads(out.read_text())
    return found


def compare_with_alone(directory: Path, ranks: int, steps: int) -> None:
    def cases(modes: list[str | None]) -> dict[str, Any]:
        return {
            f"{mode}-{matrices}": {
                "mode": mode,
                "matrices": matrices,
                "matrix_lr": lr,
                "steps": steps,
                "gradients": f"{mode}-{matrices}.safetensors",
            }
            for mode in modes
            for matrices, lr in (("adamw", 0.002), ("muon", 0.01))
        }

    expected = train(directory, "alone", None, cases([None]))
    for case, seen in train(directory, "ranks", ranks, cases(["ddp", "fsdp"])).items():
        like = f"None-{case.partition('-')[2]}"
        assert seen["tokens"] == expected[like]["tokens"]
        assert seen["data"] == expected[like]["data"]
        np.testing.assert_allclose(seen["looked"], expected[like]["looked"], rtol=1e-3)
        gradients = load_file(directory / f"{case}.safetensors")
        for name, gradient in load_file(directory / f"{like}.safetensors").items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=0, msg=f"{case}: {name}")
        tolerance = 1e-5
        np.testing.assert_allclose(seen["losses"], expected[like]["losses"], atol=tolerance, rtol=0, err_msg=case)


def test_four_ranks_match_one_process(tmp_path: Path) -> None:
    """Typical errors: means over ranks instead of sums, clipping by each rank's own norm, Muon on shards."""
    compare_with_alone(tmp_path, ranks=4, steps=8)


@pytest.mark.interop
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_fifty_steps_match_for_any_number_of_ranks(ranks: int, tmp_path: Path) -> None:
    compare_with_alone(tmp_path, ranks, steps=50)


def test_any_number_of_ranks_resumes_any_checkpoint(tmp_path: Path) -> None:
    """The helper also makes loading a pickle an error."""

    def case(mode: str | None, stop: int | None = None, at: str = "none", tied: bool = True) -> dict[str, Any]:
        whole = {"mode": mode, "matrices": "muon", "matrix_lr": 0.01, "steps": 10, "tied": tied}
        return whole | {"checkpoints": str(tmp_path / at), "weights": f"{mode}-{at}.safetensors"} | {"stop": stop}

    two = {"fsdp": case("fsdp", 5, "of-fsdp"), "ddp": case("ddp", 5, "of-ddp")}
    begun = train(tmp_path, "two", 2, two)
    one = {"whole": case(None), "from fsdp": case(None, None, "of-fsdp"), "from ddp": case(None, None, "of-ddp")}
    alone = train(tmp_path, "one", None, one | {"one": case(None, 5, "of-one")})
    for name in ("from fsdp", "from ddp"):
        for kind, tolerance in (("losses", 1e-3), ("data", 0), ("tokens", 0)):
            joined = begun[name.removeprefix("from ")][kind] + alone[name][kind]
            np.testing.assert_allclose(joined, alone["whole"][kind], atol=tolerance, rtol=0, err_msg=f"{name}: {kind}")
    files = sorted(path.name for path in (tmp_path / "of-fsdp" / "step-00000005").iterdir())
    assert [name for name in files if name.startswith("model")] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    more = {"fsdp": case("fsdp", None, "of-one"), "ddp": case("ddp", None, "of-one")}
    for name, seen in train(tmp_path, "two-more", 2, more).items():
        for kind, tolerance in (("losses", 1e-3), ("data", 0), ("tokens", 0)):
            joined = alone["one"][kind] + seen[kind]
            np.testing.assert_allclose(joined, alone["whole"][kind], atol=tolerance, rtol=0, err_msg=f"{name}: {kind}")
    # The gathered weights equal the weights of the model.
    expected = load_file(tmp_path / "None-none.safetensors")
    gathered = load_file(tmp_path / "fsdp-of-one.safetensors")
    assert expected.keys() == gathered.keys()
    for name, tensor in expected.items():
        assert (gathered[name] - tensor).abs().mean() < 1e-3, name


@pytest.mark.parametrize("bits", [None, 4])
def test_one_rank_resumes_the_adapters_of_two(bits: int | None, tmp_path: Path) -> None:
    """Most parameters are frozen; waiting for their gradients would never end."""
    quantized = {} if bits is None else {"bits": bits}

    def case(mode: str | None, stop: int | None = None, at: str = "none") -> dict[str, Any]:
        whole = {"mode": mode, "matrices": "adamw", "matrix_lr": 0.01, "steps": 8, "rank": 4, "stop": stop}
        files = {"gradients": f"{mode}-{at}.safetensors", "weights": f"weights-{mode}-{at}.safetensors"}
        return whole | quantized | {"checkpoints": str(tmp_path / at)} | files

    begun = train(tmp_path, "two", 2, {mode: case(mode, 4, f"of-{mode}") for mode in ("ddp", "fsdp")})
    taken_up = {mode: case(None, None, f"of-{mode}") for mode in ("ddp", "fsdp")}
    alone = train(tmp_path, "one", None, taken_up | {"whole": case(None)})
    expected = load_file(tmp_path / "None-none.safetensors")
    for mode in ("ddp", "fsdp"):
        joined = begun[mode]["losses"] + alone[mode]["losses"]
        np.testing.assert_allclose(joined, alone["whole"]["losses"], atol=1e-4, rtol=0, err_msg=mode)
        gradients = load_file(tmp_path / f"{mode}-of-{mode}.safetensors")
        assert gradients.keys() == expected.keys()
        assert all("lora_" in name for name in gradients)
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=0, msg=f"{mode}: {name}")
        kept = [load_file(path) for path in sorted((tmp_path / f"of-{mode}" / "step-00000004").glob("model*"))]
        assert all("lora_" in name for part in kept for name in part)
        # The model gathered on two ranks has all weights, including quantized ones.
        files = (tmp_path / f"weights-{name}.safetensors" for name in (f"{mode}-of-{mode}", "None-none"))
        gathered, of_one = map(load_file, files)
        assert gathered.keys() == of_one.keys()
        for name, tensor in of_one.items():
            if "lora_" not in name:
                assert torch.equal(gathered[name], tensor), name
    assert alone["whole"]["losses"][-1] < alone["whole"]["losses"][0]


@pytest.mark.parametrize("stops", [False, True])
def test_an_on_policy_objective_samples_the_same_on_any_number_of_ranks(stops: bool, tmp_path: Path) -> None:
    """It also generates before the first step, when FSDP has gathered nothing.

    Tensors that FSDP gathers for the first time in inference mode cannot have gradients. With stop tokens, ranks that
    gather layers one at a time would wait for each other.
    """

    def case(mode: str | None) -> dict[str, Any]:
        whole = {"mode": mode, "matrices": "adamw", "matrix_lr": 0.006, "steps": 24, "stops": stops}
        return whole | {"gradients": f"{mode}.safetensors"}

    alone = train(tmp_path, "alone", None, {"alone": case(None)})["alone"]
    assert np.mean(alone["rewards"][-4:]) > np.mean(alone["rewards"][:4]) + 0.2
    assert (len(set(np.diff(alone["tokens"]))) > 1) == stops
    expected = load_file(tmp_path / "None.safetensors")
    for mode, seen in train(tmp_path, "two", 2, {mode: case(mode) for mode in ("ddp", "fsdp")}).items():
        assert seen["tokens"] == alone["tokens"]
        for kind, tolerance in (("rewards", 1e-6), ("losses", 1e-4)):
            np.testing.assert_allclose(seen[kind], alone[kind], atol=tolerance, rtol=0, err_msg=f"{mode}: {kind}")
        gradients = load_file(tmp_path / f"{mode}.safetensors")
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=0, msg=f"{mode}: {name}")
