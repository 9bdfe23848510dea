"""`python -m benchmarks.collect.neardup`: compare near-duplicate removal with datatrove.

The documents are synthetic and consist of random excerpts of real text. Some documents have a near-duplicate with a
known Jaccard similarity of word 5-grams. Both programs read the same Parquet files and write the remaining documents as
Parquet files. The programs run alternately in new processes, and the benchmark measures the wall time of the processes.
TEXT is a text file or a directory of text files. The default is Python's language reference. DATATROVE is the path of a
Python interpreter whose environment contains datatrove. The last line of the output is a JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.core.types import Document
from groundup.corpus.dedup import NearDuplicateSettings, RepeatedTextSettings, find_duplicates
from groundup.corpus.executor import ProcessPool, Task
from groundup.corpus.merging import MergeTask
from groundup.corpus.shards import END, read_ids, read_range, write_run

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
NGRAM = 5
_RUN_BYTES = 8 << 20
_SHARD_BYTES = 64_000_000
_WORD = re.compile(r"[a-z]+")  # only letters, because the programs tokenize punctuation differently

Shingles = set[tuple[str, ...]]


def main() -> None:
    """Create the documents, run both programs alternately, and print their quality and speed."""
    options = _options()
    if options.ours:
        _deduplicate(Path(options.ours[0]), Path(options.ours[1]))
        return
    datatrove = os.environ.get("DATATROVE")
    work = Path(options.work or tempfile.mkdtemp(prefix="bench-neardup-"))
    runs, out = work / "runs", work / "out"
    pairs = _write_documents(options.documents, _words(os.environ.get("TEXT")), runs)
    commands = {"groundup": [sys.executable, "-m", "benchmarks.collect.neardup", "--ours", str(runs), str(out)]}
    if datatrove:
        tasks = str(len(list(runs.iterdir())))
        driver = str(ROOT / "benchmarks" / "collect" / "drivers" / "datatrove_minhash.py")
        commands["datatrove"] = [datatrove, driver, str(runs), str(out), tasks, str(WORKERS)]
    rates: dict[str, list[float]] = {name: [] for name in commands}
    quality: dict[str, Any] = {}
    for turn in range(options.rounds):
        for name, command in sorted(commands.items(), reverse=turn % 2 == 0):
            shutil.rmtree(out, ignore_errors=True)
            started = time.perf_counter()
            subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            rates[name].append(options.documents / (time.perf_counter() - started))
            print(f"{name}: {rates[name][-1]:,.0f} documents/s", file=sys.stderr)
            if name == "groundup":
                quality = _quality(pairs, runs, out)
    ratios = [ours / other for ours, other in zip(rates["groundup"], rates.get("datatrove", []), strict=False)]
    figures = {"neardup_vs_datatrove": statistics.median(ratios) if ratios else None} | quality
    speeds = {f"{name}_documents_per_second": statistics.median(rates[name]) for name in rates}
    print(json.dumps(figures | speeds | {"documents": options.documents, "workers": WORKERS}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="directory for the files [a temporary directory]")
    parser.add_argument("--ours", nargs=2, metavar=("RUNS", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def _words(text: str | None) -> list[str]:
    if text is None:
        from pydoc_data.topics import topics

        return _WORD.findall(" ".join(topics.values()).lower())
    words: list[str] = []
    path = Path(text)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and len(words) < 20_000_000:
            opener = gzip.open if file.suffix == ".gz" else open
            with opener(file, "rt", encoding="utf-8", errors="replace") as lines:
                words += _WORD.findall(lines.read().lower())
    return words


def _write_documents(count: int, words: Sequence[str], runs: Path) -> list[tuple[str, str, float]]:
    """Write `count` documents as sorted runs. Return the ids and the similarity of each pair of near-duplicates."""
    rng = random.Random(11)
    texts: list[str] = []
    pairs: list[tuple[int, int, float]] = []
    while len(texts) < count:
        document = _document(words, rng)
        texts.append(" ".join(document))
        if len(texts) < count and rng.random() < 0.35:
            copy, similarity = _copy(document, words, rng)
            pairs.append((len(texts) - 1, len(texts), similarity))
            texts.append(" ".join(copy))
    documents = [Document(text=text, source="synthetic", origin=str(number)) for number, text in enumerate(texts)]
    ids = [document.id for document in documents]
    rng.shuffle(documents)
    runs.mkdir(parents=True, exist_ok=True)
    for number, run in enumerate(_split_runs(documents)):
        write_run(runs / f"run-{number:05d}.parquet", sorted(run, key=lambda document: document.id))
    return [(ids[one], ids[other], similarity) for one, other, similarity in pairs]


def _document(words: Sequence[str], rng: random.Random) -> list[str]:
    """Return a document of 100 to 400 words. Documents consist of short excerpts, so that they are dissimilar."""
    document: list[str] = []
    length = rng.randrange(100, 400)
    while len(document) < length:
        at = rng.randrange(len(words) - 16)
        document += words[at : at + rng.randrange(6, 16)]
    return document


def _copy(document: Sequence[str], words: Sequence[str], rng: random.Random) -> tuple[list[str], float]:
    """Return a near-duplicate of a document, and the similarity of both documents.

    Words are replaced, inserted and deleted until the similarity has decreased to a random value.
    """
    target = rng.uniform(0.70, 0.99)
    original, copy, similarity = _shingles(document), list(document), 1.0
    while True:
        changed = list(copy)
        at = rng.randrange(len(changed))
        changed[at : at + rng.randrange(2)] = [rng.choice(words) for _ in range(rng.randrange(2))]
        new_similarity = _jaccard(original, _shingles(changed))
        if new_similarity < target and similarity < 1:
            return copy, similarity
        copy, similarity = changed, new_similarity


def _shingles(words: Sequence[str]) -> Shingles:
    return set(zip(*(words[place:] for place in range(NGRAM)), strict=False))


def _jaccard(one: Shingles, other: Shingles) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _split_runs(documents: Sequence[Document]) -> Iterator[list[Document]]:
    run: list[Document] = []
    size = 0
    for document in documents:
        run.append(document)
        size += len(document.text)
        if size >= _RUN_BYTES:
            yield run
            run, size = [], 0
    if run:
        yield run


def _deduplicate(runs: Path, out: Path) -> None:
    """Run the steps of `groundup collect` from the sorted runs to the shards of the corpus."""
    paths = tuple(sorted(runs.iterdir()))
    shards = max(WORKERS, sum(path.stat().st_size for path in paths) * 2 // _SHARD_BYTES)
    with ProcessPool(WORKERS) as pool:

        def run(label: str, tasks: Sequence[Task]) -> None:
            pool(tasks, lambda _: None)

        duplicates = find_duplicates(paths, NearDuplicateSettings(), RepeatedTextSettings(), out / "duplicates", run)
        merges = [
            MergeTask(
                runs=paths,
                number=number,
                shards=shards,
                validation_fraction=0.02,
                min_document_bytes=1,
                duplicates=duplicates,
                directory=out / "parts",
                train=out / f"train-{number:05d}.parquet",
                validation=out / f"validation-{number:05d}.parquet",
            )
            for number in range(shards)
        ]
        run("merging", merges)
    kept = {dropped: fate.kept for dropped, fate in duplicates.within("", END).items()}
    (out / "kept.json").write_text(json.dumps(kept))


def _quality(pairs: Sequence[tuple[str, str, float]], runs: Path, out: Path) -> dict[str, float]:
    """Return the recall over the known pairs, and the precision over all dropped documents.

    A drop is correct if the dropped document is really similar to the kept document.
    """
    kept: dict[str, str] = json.loads((out / "kept.json").read_text())
    remaining = {each for shard in out.glob("*-*.parquet") for each in read_ids(shard, "", END)}
    texts = {d.id: d.text for run in sorted(runs.iterdir()) for d in read_range(run)}
    assert remaining == texts.keys() - kept.keys()

    def recall(low: float, high: float) -> float:
        found = [one in kept or other in kept for one, other, similarity in pairs if low <= similarity <= high]
        return sum(found) / len(found)

    correct = [
        _jaccard(_shingles(texts[one].split()), _shingles(texts[other].split())) >= 0.8 for one, other in kept.items()
    ]
    return {
        "neardup_recall_087": recall(0.87, 1.0),
        "neardup_recall_080": recall(0.80, 0.82),
        "neardup_precision": sum(correct) / len(correct),
    }


if __name__ == "__main__":
    main()
