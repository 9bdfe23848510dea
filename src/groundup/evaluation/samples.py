"""Text samples of a model: continuations of held-out documents, and one text that is generated without a prompt."""

from __future__ import annotations

import numpy as np

from groundup.data import TokenDocuments
from groundup.evaluation.report import Sample
from groundup.inference import Engine, GenerationRequest, Sampling

PROMPT_TOKENS = 12
SAMPLE_TOKENS = 120
SAMPLING = Sampling(temperature=0.8, top_p=0.95)


def write_samples(engine: Engine, documents: TokenDocuments, count: int, *, seed: int) -> list[Sample]:
    """Generate `count` texts.

    The last text is generated without a prompt. All other texts continue randomly chosen held-out documents. The same
    seed, documents and model give the same samples.

    Args:
        engine: inference engine.
        documents: held-out documents. Only documents that are longer than the prompt are chosen.
        count: number of texts.
        seed: seed for choosing documents and for sampling tokens.

    Returns:
        The generated texts with their prompts.
    """
    given = min(PROMPT_TOKENS, engine.model.config.context_length // 2)
    long_enough = np.flatnonzero(documents.lengths > given)
    drawn = np.random.default_rng(seed).permutation(long_enough)[: max(count - 1, 0)]
    tokenizer = engine.tokenizer
    beginnings = [documents.document(int(index))[:given].tolist() for index in drawn]
    prompts = [*beginnings, []][:count]
    requests = [
        GenerationRequest(
            prompt=(tokenizer.bos_id, *ids), sampling=SAMPLING, max_tokens=SAMPLE_TOKENS, seed=seed + offset
        )
        for offset, ids in enumerate(prompts)
    ]
    return [
        Sample(tokenizer.decode(ids), done.text, done.finish_reason, seed + offset)
        for offset, (ids, done) in enumerate(zip(prompts, engine.complete_all(requests), strict=True))
    ]
