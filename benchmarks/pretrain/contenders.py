"""Who takes part, in which mode, and who cannot: a peer that is absent is named and left out, nothing is fetched."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from groundup.core.openmp import DEFAULTS as BRIEF_SPINNING

Group = Literal["ours", "muon", "fp8", "default", "bf16", "malloc"]

# glibc gives buffers above 32 MiB back to the system and faults them in again each step; this makes it keep them.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
PATCH = Path(__file__).with_name("nanochat_matched_shape.patch")


@dataclass(frozen=True, slots=True)
class Contender:
    """A program in one mode.

    Attributes:
        group: which bar it counts for: "default" as its script runs on this device, "bf16" by a flag or one line,
            "malloc" the same with the allocator's environment variables. "ours" has AdamW for everything, as the peers
            that nearly always win have; "muon" is ours as `groundup pretrain` trains by default, "fp8" with AdamW and
            the layers' products in fp8.
        environment: added to its process's.
    """

    name: str
    driver: str
    group: Group
    dtype: str = "float32"
    checkout: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peers:
    """Where the peers are.

    Attributes:
        nanogpt, nanochat: checkouts.
        litgpt: a directory filled by `pip install --target`; where None, it may be installed.
        absent: name -> why it is left out.
    """

    nanogpt: Path | None
    nanochat: Path | None
    litgpt: Path | None
    absent: dict[str, str]

    @classmethod
    def find(cls) -> Peers:
        """Look at the environment variables and at what is installed."""
        absent: dict[str, str] = {}
        nanogpt = _checkout("NANOGPT", "model.py", "github.com/karpathy/nanoGPT", absent)
        nanochat = _checkout("NANOCHAT", "nanochat/gpt.py", "github.com/karpathy/nanochat", absent)
        litgpt = Path(os.environ["LITGPT"]) if os.environ.get("LITGPT") else None
        if litgpt is None and not _installed("litgpt"):
            absent["litgpt"] = "not installed, and LITGPT names no directory of pip install --target"
        if not (_installed("transformers") and _installed("accelerate")):
            absent["HF Trainer"] = "transformers or accelerate is not installed"
        return cls(nanogpt, nanochat, litgpt, absent)


def ours() -> list[Contender]:
    """groundup, with AdamW as its peers (all but nanochat), and with Muon, its default."""
    modes: dict[str, Group] = {"groundup, AdamW": "ours", "groundup, Muon": "muon"}
    # As the command sets it: the worker imports torch before groundup, which is then too late to do so.
    return [Contender(name, "ours", group, environment=BRIEF_SPINNING) for name, group in modes.items()]


def cpu_contenders(peers: Peers, shape: str, matched_nanochat: Path | None) -> list[Contender]:
    """Everyone who is timed on a CPU at a shape; at shape b the bar names nanoGPT alone, the others are shown."""
    everyone = ours()
    if peers.nanogpt:
        everyone += _modes("nanoGPT", "nanogpt", peers.nanogpt)
    if matched_nanochat:
        everyone += _modes("nanochat", "nanochat", matched_nanochat, bf16={"NANOCHAT_DTYPE": "bfloat16"})
    if "litgpt" not in peers.absent:
        everyone += _modes("litgpt", "litgpt", peers.litgpt)
    if "HF Trainer" not in peers.absent:
        everyone += _modes("HF Trainer", "hf_trainer", None)
    if shape == "b":
        return [one for one in everyone if one.driver in ("ours", "nanogpt", "nanochat") and one.group != "malloc"]
    return everyone


def gpu_contenders(peers: Peers, matched_nanochat: Path | None) -> list[Contender]:
    """groundup, nanoGPT and nanochat on one GPU; both peers compute in bf16 there by default."""
    everyone = ours()
    if _installed("torchao"):
        everyone.append(Contender("groundup, AdamW, fp8", "ours", "fp8", "float8", environment=BRIEF_SPINNING))
    if peers.nanogpt:
        everyone.append(Contender("nanoGPT", "nanogpt", "default", "bfloat16", peers.nanogpt))
    if matched_nanochat:
        everyone.append(Contender("nanochat", "nanochat", "default", "bfloat16", matched_nanochat))
    return everyone


def match_nanochat(checkout: Path, work: Path) -> Path:
    """A copy of nanochat without its value embeddings, by the patch that lies beside this file.

    They are tables of vocabulary x width in every other layer, and take part in no product. At shape b they are 232 of
    394 million parameters: time and memory of an optimizer that no GPT-2 pays for.
    """
    copy = work / "nanochat-matched"
    if not copy.is_dir():
        shutil.copytree(checkout / "nanochat", copy / "nanochat")
        # Above the copy git must find no repository: within one it would look for the files there.
        environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(work.resolve())}
        subprocess.run(["git", "apply", "--unidiff-zero", str(PATCH)], cwd=copy, env=environment, check=True)
    return copy


def _modes(name: str, driver: str, checkout: Path | None, *, bf16: Mapping[str, str] | None = None) -> list[Contender]:
    bf16 = bf16 or {}
    return [
        Contender(f"{name}, default", driver, "default", "float32", checkout),
        Contender(f"{name}, bf16", driver, "bf16", "bfloat16", checkout, bf16),
        Contender(f"{name}, bf16, malloc", driver, "malloc", "bfloat16", checkout, {**bf16, **MALLOC}),
    ]


def _checkout(variable: str, file: str, origin: str, absent: dict[str, str]) -> Path | None:
    name = {"NANOGPT": "nanoGPT", "NANOCHAT": "nanochat"}[variable]
    value = os.environ.get(variable)
    if not value:
        absent[name] = f"{variable} names no checkout of {origin}"
        return None
    path = Path(value).resolve()
    if not (path / file).is_file():
        absent[name] = f"{variable}={value} has no {file}"
        return None
    return path


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
