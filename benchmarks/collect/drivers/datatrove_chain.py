"""The peer's side of the throughput benchmark: FineWeb's order of datatrove's own steps, on two workers.

Run by the peer's Python: `python datatrove_chain.py WARC_DIRECTORY WORK_DIRECTORY LANGUAGE_MODEL LANGUAGE`.
Every setting is the peer's default. Prints one JSON object: the documents left after the filters and after MinHash.
"""

import json
import sys
from pathlib import Path

import trafilatura  # noqa: F401  here, or each sandbox imports it within the second that a page is given
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers.jsonl import JsonlWriter

WORKERS = 2


class OfflineLanguageFilter(LanguageFilter):
    """The peer's filter, with fastText's model from a file: the peer would download it."""

    def __init__(self, model: str, languages: list[str]) -> None:
        super().__init__(languages)
        self.file = model

    def filter(self, doc):
        """As the peer does, once the model is loaded."""
        if self.model._model is None:
            from fasttext.FastText import _FastText

            self.model._model = _FastText(self.file)
        return super().filter(doc)


def lines(directory: Path) -> int:
    """How many documents a writer left."""
    import gzip

    return sum(sum(1 for _ in gzip.open(path)) for path in directory.glob("*.jsonl.gz"))


def main(warcs: str, work: str, model: str, language: str) -> None:
    """Run the five stages, each after the other."""
    root = Path(work)
    tasks = len(list(Path(warcs).iterdir()))
    filtered, signatures, buckets = str(root / "filtered"), str(root / "signatures"), str(root / "buckets")
    removed, kept = str(root / "removed"), str(root / "kept")
    config = MinhashConfig()
    stages = [
        (
            [
                WarcReader(warcs),
                Trafilatura(),
                OfflineLanguageFilter(model, [language]),
                GopherRepetitionFilter(),
                GopherQualityFilter(),
                C4QualityFilter(filter_no_terminal_punct=False),
                FineWebQualityFilter(),
                JsonlWriter(filtered),
            ],
            tasks,
        ),
        ([JsonlReader(filtered), MinhashDedupSignature(signatures, config=config)], tasks),
        ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([JsonlReader(filtered), MinhashDedupFilter(removed), JsonlWriter(kept)], tasks),
    ]
    for number, (pipeline, parts) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=parts, workers=WORKERS, logging_dir=str(root / f"log-{number}")).run()
    print(json.dumps({"filtered": lines(Path(filtered)), "kept": lines(Path(kept))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
