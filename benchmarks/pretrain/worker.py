"""The worker process that trains one program: `python -m benchmarks.pretrain.worker JOB.json RESULT.json`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.pretrain.clock import Clock
from benchmarks.pretrain.job import Job, Logits


def main() -> None:
    """Run the job and write the result."""
    request = json.loads(Path(sys.argv[1]).read_text())
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    if "model" in request:
        from groundup.hub import load_model

        model = load_model(Path(request["model"]))
        context = model.config.context_length
        result["score"] = _score(model, Path(request["tokens"]), context, "cpu", request["documents"])
    else:
        job = Job.from_json(request["job"])
        clock = Clock(device=job.device, **request["clock"])
        train = importlib.import_module(f"benchmarks.pretrain.drivers.{job.driver}").train
        logits = train(job, clock)
        result |= clock.record() | {"peak_bytes": _peak_bytes(job.device)}
        if "documents" in request:
            result["score"] = _score(logits, job.tokens, job.shape.context, job.device, request["documents"])
    Path(sys.argv[2]).write_text(json.dumps(result))


def _score(logits: Logits, tokens: Path, context: int, device: str, documents: int | None) -> dict[str, Any]:
    """Return the bits per byte of the held-out documents. groundup's scorer computes them from the logits."""
    from groundup.data import TokenShards
    from groundup.evaluation.bpb import bits_per_byte, logits_nll

    held_out = TokenShards(tokens, "validation")
    subset = None if documents is None else range(min(documents, held_out.n_documents))
    with torch.compiler.set_stance("force_eager"):  # otherwise torch would compile the model for each shape
        score = bits_per_byte(
            logits_nll(logits),
            held_out,
            context_length=context,
            bos_id=held_out.bos_id,
            subset=subset,
            device=device,
        )
    return {
        "bpb": score.bpb,
        "document_nll": score.document_nll.tolist(),
        "document_bytes": score.document_bytes.tolist(),
    }


def _peak_bytes(device: str) -> int:
    """Return the peak allocated memory on a GPU, or the peak resident memory of this process on a CPU, in bytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
