"""datatrove's MinHash example over Parquet files: 14 bands of 8 rows, word 5-grams, 64-bit hashes.

    python datatrove_minhash.py IN OUT TASKS WORKERS

The driver requires a Python environment that contains datatrove.
"""

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.hashing import HashConfig


def main() -> None:
    """Run datatrove's four MinHash steps: signatures, buckets, clusters and the filter."""
    source, out, tasks, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    signatures, buckets, removed = (str(out / name) for name in ("signatures", "buckets", "removed"))

    def read() -> ParquetReader:
        return ParquetReader(source, glob_pattern="*.parquet", text_key="text", id_key="id")

    steps = [
        ([read(), MinhashDedupSignature(signatures, config=config)], tasks),
        ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        ([read(), MinhashDedupFilter(removed), ParquetWriter(str(out / "kept"), compression="zstd")], tasks),
    ]
    for number, (pipeline, step_tasks) in enumerate(steps):
        LocalPipelineExecutor(
            pipeline, tasks=step_tasks, workers=workers, logging_dir=str(out / "logs" / str(number))
        ).run()


if __name__ == "__main__":
    main()
