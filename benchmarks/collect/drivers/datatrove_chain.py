"""The driver of datatrove in the throughput benchmark.

    python datatrove_chain.py WARC_DIRECTORY WORK_DIRECTORY LANGUAGE_MODEL LANGUAGE

The driver runs datatrove's steps in FineWeb's order, with default settings and two workers. The driver requires a
Python environment that contains datatrove. The output is a JSON object with the number of documents after the filters
and after MinHash.
"""

import json
import sys
from pathlib import Path

import trafilatura  # noqa: F401  otherwise the import counts toward the timeout of each sandbox
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
    """datatrove's language filter, with a local fastText model instead of a downloaded model."""

    def __init__(self, model: str, languages: list[str]) -> None:
        super().__init__(languages)
        self.file = model

    def filter(self, doc):
        """Apply the filter to a document. The first call loads the model."""
        if self.model._model is None:
            from fasttext.FastText import _FastText

            self.model._model = _FastText(self.file)
        return super().filter(doc)


def count_documents(directory: Path) -> int:
    """Return the number of documents in the output directory of a writer."""
    import gzip

    return sum(sum(1 for _ in gzip.open(path)) for path in directory.glob("*.jsonl.gz"))


def main(warcs: str, work: str, model: str, language: str) -> None:
    """Run the five datatrove stages in order."""
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
    print(json.dumps({"filtered": count_documents(Path(filtered)), "kept": count_documents(Path(kept))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
