"""The programs that are compared, and their modes. A missing program is reported and skipped, and not downloaded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from groundup.core.openmp import DEFAULTS as OPENMP_DEFAULTS

Group = Literal["adamw", "muon", "fp8", "unmasked", "default", "bf16", "malloc", "optimized"]

# By default, glibc returns freed buffers above 32 MiB to the system, so each step causes page faults. With these
# settings, glibc keeps the buffers.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
# Transparent huge pages for the buffers of malloc. `groundup.kernels.heap` requests the same pages for groundup.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
PATCH = Path(__file__).with_name("nanochat_matched_shape.patch")


@dataclass(frozen=True, slots=True)
class Contender:
    """A program in one mode.

    Attributes:
        name: Name of the program and the mode in tables.
        driver: Name of the module in `benchmarks.pretrain.drivers`.
        group: Kind of mode. For other programs, it is "default" (default settings), "bf16", "malloc" (bf16 with
            allocator settings), or "optimized" ("malloc" with huge pages and fused AdamW). For groundup, it is "adamw"
            (AdamW for all parameters, as in the other programs), "muon" (the default), "unmasked" (AdamW, without
            document masks, as in the other programs), or "fp8" (AdamW, with fp8 matmuls in the layers).
        dtype: Compute dtype.
        checkout: Directory that contains the code of the program, or None if the program is installed.
        environment: Additional environment variables of the process.
    """

    name: str
    driver: str
    group: Group
    dtype: str = "float32"
    checkout: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peers:
    """Locations of the other programs.

    Attributes:
        nanogpt: Directory of the Git checkout of nanoGPT.
        nanochat: Directory of the Git checkout of nanochat.
        litgpt: Directory into which litgpt was installed with `pip install --target`, or None if litgpt is installed in
            the environment.
        absent: Mapping from the name of each missing program to the reason.
    """

    nanogpt: Path | None
    nanochat: Path | None
    litgpt: Path | None
    absent: dict[str, str]

    @classmethod
    def find(cls) -> Peers:
        """Find the programs from environment variables and installed packages."""
        absent: dict[str, str] = {}
        nanogpt = _checkout("NANOGPT", "model.py", "github.com/karpathy/nanoGPT", absent)
        nanochat = _checkout("NANOCHAT", "nanochat/gpt.py", "github.com/karpathy/nanochat", absent)
        litgpt = Path(os.environ["LITGPT"]) if os.environ.get("LITGPT") else None
        if litgpt is None and not _installed("litgpt"):
            absent["litgpt"] = "not installed, and LITGPT is not set to a directory of pip install --target"
        if not (_installed("transformers") and _installed("accelerate")):
            absent["HF Trainer"] = "transformers or accelerate is not installed"
        return cls(nanogpt, nanochat, litgpt, absent)


def groundup_contenders() -> list[Contender]:
    """Return groundup with AdamW, which most other programs use, and groundup with Muon, which is its default."""
    modes: dict[str, Group] = {"groundup, AdamW": "adamw", "groundup, Muon": "muon"}
    # The worker imports torch before groundup, so the import of groundup would set these variables too late.
    return [Contender(name, "groundup_trainer", group, environment=OPENMP_DEFAULTS) for name, group in modes.items()]


def cpu_contenders(peers: Peers, shape: str, matched_nanochat: Path | None) -> list[Contender]:
    """Return the programs and modes that are compared for a shape on a CPU."""
    contenders = groundup_contenders()
    if shape == "quickstart":
        return contenders
    # Document masks make groundup faster. The other programs do not use them.
    contenders.append(
        Contender("groundup, no document masks", "groundup_trainer", "unmasked", environment=OPENMP_DEFAULTS)
    )
    if peers.nanogpt:
        contenders += _modes("nanoGPT", "nanogpt", peers.nanogpt)
        optimized = {**MALLOC, **HUGE_PAGES}
        contenders.append(Contender("nanoGPT, optimized", "nanogpt", "optimized", "bfloat16", peers.nanogpt, optimized))
    if matched_nanochat:
        contenders += _modes("nanochat", "nanochat", matched_nanochat, bf16={"NANOCHAT_DTYPE": "bfloat16"})
    if "litgpt" not in peers.absent:
        contenders += _modes("litgpt", "litgpt", peers.litgpt)
    if "HF Trainer" not in peers.absent:
        contenders += _modes("HF Trainer", "hf_trainer", None)
    if shape == "b":
        return [
            each
            for each in contenders
            if each.driver in ("groundup_trainer", "nanogpt") or (each.driver == "nanochat" and each.group != "malloc")
        ]
    return contenders


def gpu_contenders(peers: Peers, matched_nanochat: Path | None) -> list[Contender]:
    """Return the programs and modes that are compared on a GPU. nanoGPT and nanochat use bf16 by default."""
    contenders = groundup_contenders()
    if _installed("torchao"):
        contenders.append(
            Contender("groundup, AdamW, fp8", "groundup_trainer", "fp8", "float8", environment=OPENMP_DEFAULTS)
        )
    if peers.nanogpt:
        contenders.append(Contender("nanoGPT", "nanogpt", "default", "bfloat16", peers.nanogpt))
    if matched_nanochat:
        contenders.append(Contender("nanochat", "nanochat", "default", "bfloat16", matched_nanochat))
    return contenders


def match_nanochat(checkout: Path, work: Path) -> Path:
    """Copy nanochat, and remove the value embeddings from the copy with a patch.

    Value embeddings are tables of vocabulary size x hidden size in every second layer, which are not used in matmuls.
    For shape b, they have 232 of 394 million parameters. These parameters need memory and time in the optimizer step,
    which GPT-2 does not need.
    """
    copy = work / "nanochat-matched"
    if not copy.is_dir():
        shutil.copytree(checkout / "nanochat", copy / "nanochat")
        # If the directory is in a Git repository, `git apply` would look for the files at the root of the repository.
        environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(work.resolve())}
        subprocess.run(["git", "apply", "--unidiff-zero", str(PATCH)], cwd=copy, env=environment, check=True)
    return copy


def _modes(name: str, driver: str, checkout: Path | None, *, bf16: Mapping[str, str] | None = None) -> list[Contender]:
    bf16 = bf16 or {}
    return [
        Contender(f"{name}, default", driver, "default", "float32", checkout),
        Contender(f"{name}, bf16", driver, "bf16", "bfloat16", checkout, bf16),
        Contender(f"{name}, malloc", driver, "malloc", "bfloat16", checkout, {**bf16, **MALLOC}),
    ]


def _checkout(variable: str, file: str, origin: str, absent: dict[str, str]) -> Path | None:
    name = {"NANOGPT": "nanoGPT", "NANOCHAT": "nanochat"}[variable]
    value = os.environ.get(variable)
    if not value:
        absent[name] = f"{variable} is not set to a checkout of {origin}"
        return None
    path = Path(value).resolve()
    if not (path / file).is_file():
        absent[name] = f"{variable}={value} has no {file}"
        return None
    return path


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
