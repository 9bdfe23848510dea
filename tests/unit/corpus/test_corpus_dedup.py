"""Near-duplicates equal those found with Python sets, and do not depend on partitions, workers or interruptions."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError

from groundup.core.console import Console
from groundup.core.errors import DataError
from groundup.core.types import Document
from groundup.corpus import CorpusSettings, FolderSource, build_corpus, read_card, read_documents
from groundup.corpus.dedup import FoundDuplicates, NearDuplicateSettings, RepeatedTextSettings, find_duplicates
from groundup.corpus.dedup import find as find_module
from groundup.corpus.dedup import pairs as pairs_module
from groundup.corpus.dedup import partitions as partitions_module
from groundup.corpus.drop_log import read_drop_log
from groundup.corpus.executor import ProcessPool, Task
from groundup.corpus.shards import END, write_run

NO_REPEATS = RepeatedTextSettings()


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.sub("([\u4e00-\u9fff\u0e00-\u0e7f])", r" \1 ", text).lower().split()
    return {tuple(words[at : at + 5]) for at in range(max(1, len(words) - 4))} if words else set()


def _jaccard(one: str, other: str) -> float:
    a, b = _shingles(one), _shingles(other)
    return len(a & b) / len(a | b)


def _changed(text: str, count: int, rng: random.Random) -> str:
    """Replace some words by unique words."""
    words = text.split()
    for at in rng.sample(range(len(words)), count):
        words[at] = f"new{rng.random()}"
    return " ".join(words)


def _write(directory: Path, *runs: Sequence[str]) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, texts in enumerate(runs):
        documents = [Document(text=text, source=f"s{number}", origin=str(at)) for at, text in enumerate(texts)]
        paths.append(directory / f"run-{number:03d}.parquet")
        write_run(paths[-1], sorted(documents, key=lambda document: document.id))
    return paths


def _inline(label: str, tasks: Sequence[Task]) -> None:
    for task in tasks:
        if not task.done():
            task.run()


def _find(
    runs: Sequence[Path],
    directory: Path,
    run: Callable[[str, Sequence[Task]], None] = _inline,
    repeated: RepeatedTextSettings = NO_REPEATS,
    **settings: object,
) -> FoundDuplicates:
    return find_duplicates(runs, NearDuplicateSettings(**settings), repeated, directory, run)


def _id(text: str) -> str:
    return Document(text=text, source="", origin="").id


@pytest.fixture(scope="module")
def pages(real_documents: list[str]) -> list[str]:
    """Distinct excerpts of real text, 90 words each."""
    words = " ".join(real_documents).split()
    return [" ".join(words[at : at + 90]) for at in range(0, 60_000, 90)]


@pytest.fixture(scope="module")
def mixed(pages: list[str]) -> list[str]:
    """The pages, and each page with one to three words changed: similarities from 0.7 to 1."""
    rng = random.Random(5)
    return [*pages, *(_changed(page, rng.randint(1, 3), rng) for page in pages)]


def test_exactly_the_near_duplicates_are_dropped(tmp_path: Path, mixed: list[str]) -> None:
    """A quarter of the LSH candidates are false, so each drop is checked with the exact similarity."""
    runs = _write(tmp_path, mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :])
    removals = _find(runs, tmp_path / "work").within("", END)
    texts = {_id(text): text for text in mixed}
    for dropped, removal in removals.items():
        similarity = _jaccard(texts[dropped], texts[removal.kept])
        assert similarity >= 0.8
        assert removal.why.detail == f"J = {similarity:.3f}"
        assert removal.kept not in removals
    half = len(mixed) // 2
    # A near-duplicate is kept if its page is dropped for a page that is less similar to it.
    kept = [(page, copy) for page, copy in zip(mixed[:half], mixed[half:], strict=True) if _id(page) not in removals]
    planted = [(_id(copy), _jaccard(page, copy)) for page, copy in kept]
    near = [(copy in removals, similarity) for copy, similarity in planted if 0.8 <= similarity < 1]
    assert len(near) > 200
    assert sum(found for found, _ in near) / len(near) > 0.99
    assert all(found for found, similarity in near if similarity > 0.85)


def test_the_earlier_document_is_kept(tmp_path: Path, pages: list[str]) -> None:
    rng = random.Random(1)
    copies = [_changed(page, 1, rng) for page in pages[:50]]
    first = _find(_write(tmp_path / "1", pages[:50], copies), tmp_path / "1w").within("", END)
    second = _find(_write(tmp_path / "2", copies, pages[:50]), tmp_path / "2w").within("", END)
    assert set(first) <= {_id(copy) for copy in copies}
    assert set(second) <= {_id(page) for page in pages[:50]}
    assert {(removal.kept, dropped) for dropped, removal in first.items()} == {(d, f.kept) for d, f in second.items()}
    assert len(first) >= 49


def test_the_ends_of_a_chain_of_changes_are_not_duplicates(tmp_path: Path, pages: list[str]) -> None:
    """Dropping by connected components would keep one of these ten, although the ends are dissimilar."""
    words = " ".join(pages[:3]).split()
    chain = [" ".join([*(f"new{at}" for at in range(n * 12)), *words[n * 12 :]]) for n in range(10)]
    similar = [_jaccard(a, b) for a, b in pairwise(chain)]
    assert min(similar) >= 0.85
    assert _jaccard(chain[0], chain[-1]) < 0.5
    removals = _find(_write(tmp_path, *([text] for text in chain)), tmp_path / "w").within("", END)
    expected: list[str] = []  # kept documents
    for text in chain:
        if all(_jaccard(text, kept) < 0.8 for kept in expected):
            expected.append(text)
    assert 1 < len(expected) < 10
    assert set(removals) == {_id(text) for text in chain if text not in expected}


def test_exact_duplicates_are_left_to_the_merge(tmp_path: Path, pages: list[str]) -> None:
    """Duplicates share an ID, so a listed ID would remove the first occurrence, too."""
    runs = _write(tmp_path, pages[:20], pages[:20], pages[:20])
    assert _find(runs, tmp_path / "w").within("", END) == {}


SCRIPTS = [
    "人工智能正在改变我们的生活方式,许多公司都在研究新的技术,希望能够提高工作效率并且降低成本。",
    "ปัญญาประดิษฐ์กำลังเปลี่ยนแปลงวิถีชีวิตของเราอย่างรวดเร็ว",
    "Größere Änderungen an der Straße ließen die Anwohner über Jahre hinweg auf Übergänge warten, ÄRGERLICH.",
]


@pytest.mark.parametrize("text", SCRIPTS)
def test_scripts_with_and_without_spaces(tmp_path: Path, text: str) -> None:
    copy = text[:-1] + "!"
    assert 0.8 <= _jaccard(text, copy) < 1
    removals = _find(_write(tmp_path, [text], [copy, "x"]), tmp_path / "w").within("", END)
    assert [(dropped, removal.why.detail) for dropped, removal in removals.items()] == [
        (_id(copy), f"J = {_jaccard(text, copy):.3f}")
    ]


def test_short_and_empty_texts(tmp_path: Path) -> None:
    """A text with fewer words than a shingle is one shingle. Texts without words are not duplicates."""
    runs = _write(tmp_path, ["one two", " one two three\n", "", " ", "\n\n"], ["One  TWO", "two one", "\t"])
    assert {dropped: removal.kept for dropped, removal in _find(runs, tmp_path / "w").within("", END).items()} == {
        _id("One  TWO"): _id("one two")
    }


def test_partitions_processes_and_interruptions_give_the_same_result(
    tmp_path: Path, mixed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _write(tmp_path, *(mixed[at::4] for at in range(4)))
    few = {"bands": 7, "rows": 4}  # few bands, to limit the number of tasks
    whole = _find(runs, tmp_path / "whole", **few)
    expected = whole.within("", END)

    monkeypatch.setattr(find_module, "_BUCKET_DOCUMENTS", 300)
    monkeypatch.setattr(find_module, "_COMPARED_DOCUMENTS", 100)
    monkeypatch.setattr(find_module, "_MIN_BYTES", 1)
    monkeypatch.setattr(find_module, "_MIN_MEMBERS", 1000)
    monkeypatch.setattr(find_module, "_MAX_COMPARE_TASKS", 10)
    monkeypatch.setattr(partitions_module, "_MIN_BYTES", 1)
    monkeypatch.setattr(pairs_module, "_CHUNK_SHINGLES", 1000)
    monkeypatch.setattr(pairs_module, "_CHUNK_DOCUMENTS", 10)
    with ProcessPool(2) as pool:
        found = _find(runs, tmp_path / "pool", lambda _, tasks: pool(tasks, lambda _: None), **few)
    assert found.within("", END) == expected
    budget = random.Random(2)
    left = [0]

    def cut_off(label: str, tasks: Sequence[Task]) -> None:
        for task in (task for task in tasks if not task.done()):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            task.run()

    attempts = 0
    while True:
        attempts, left[0] = attempts + 1, budget.randrange(1, 12)
        try:
            parts = _find(runs, tmp_path / "parts", cut_off, **few)
        except KeyboardInterrupt:
            continue
        break
    assert attempts > 5
    assert parts.within("", END) == expected
    assert parts.summary() == whole.summary()
    ranges = ["", "4", "9f", END]
    assert {k: v for low, high in pairwise(ranges) for k, v in parts.within(low, high).items()} == expected
    assert {path.name.split("-")[0] for path in (tmp_path / "parts").iterdir()} == {"near", "dropped"}


def test_large_buckets_take_linear_time(tmp_path: Path, pages: list[str]) -> None:
    rng = random.Random(3)
    banners = [f"{pages[0]} {rng.random()}" for _ in range(2000)]
    compared = []

    def count(label: str, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if isinstance(task, pairs_module.CompareTask):
                compared.append(len(task._pairs()[0]))
            task.run()

    found = _find(_write(tmp_path, banners), tmp_path / "w", count)
    assert len(found.within("", END)) == 1999
    assert sum(compared) < 2000 * 18 * pairs_module.COMPARED
    assert found.summary()["clusters"] == [{"kept": min(map(_id, banners)), "dropped": 1999}]
    assert found.summary()["dropped"] == 1999


def test_against_an_existing_corpus(tmp_path: Path, pages: list[str]) -> None:
    rng = random.Random(4)
    corpus = tmp_path / "old"
    shard = _write(corpus, [*pages[:30], *(_changed(page, 1, rng) for page in pages[:5])])[0]
    shard.rename(corpus / "train-00000.parquet")
    before = (corpus / "train-00000.parquet").read_bytes()
    near = [_changed(page, 1, rng) for page in pages[:10]]
    runs = _write(tmp_path, [*pages[20:40], *near], pages[40:50])
    removals = _find(runs, tmp_path / "w", existing=[corpus]).within("", END)
    assert {_id(text) for text in pages[20:30]} <= set(removals)
    assert {removal.why.reason for d, removal in removals.items() if d in {_id(t) for t in pages[20:30]}} == {
        "in another corpus"
    }
    assert len({_id(text) for text in near} & set(removals)) == 10
    assert all(str(corpus) in removal.why.detail for removal in removals.values())
    assert not {_id(text) for text in pages[30:50]} & set(removals)
    assert (corpus / "train-00000.parquet").read_bytes() == before
    only_exact = _find(runs, tmp_path / "exact", existing=[corpus], enabled=False).within("", END)
    assert set(only_exact) == {_id(text) for text in pages[20:30]}
    with pytest.raises(DataError, match="nowhere"):
        _find(runs, tmp_path / "none", existing=[tmp_path / "nowhere"])


def test_settings_with_low_recall_are_refused() -> None:
    assert NearDuplicateSettings().candidate_probability(0.8) == pytest.approx(0.986, abs=1e-3)
    with pytest.raises(ValidationError, match="more bands"):
        NearDuplicateSettings(threshold=0.5)
    NearDuplicateSettings(threshold=0.5, bands=60, rows=4)


LICENCE = "Permission is granted to copy this page for any purpose, provided that this notice is left as it is."


@pytest.mark.parametrize(("unit", "join"), [("paragraph", "\n\n"), ("line", "\n")])
def test_the_first_occurrence_of_a_passage_is_kept(tmp_path: Path, pages: list[str], unit: str, join: str) -> None:
    texts = [
        join.join([page, "See also", LICENCE if at % 2 else LICENCE.upper()]) for at, page in enumerate(pages[:30])
    ]
    texts.append(join.join([pages[40], pages[40], "ending"]))
    near_copy = _changed(pages[0], 1, random.Random(6)) + join + "See also" + join + LICENCE
    runs = _write(tmp_path, texts[:10], [near_copy], texts[10:])
    settings = RepeatedTextSettings(unit=unit)
    found = _find(runs, tmp_path / "w", repeated=settings)
    cut = [found.without_repeats(Document(text=text, source="s", origin="o")) for text in texts]
    assert [document.id for document in cut] == [_id(text) for text in texts]
    first = min(texts[:10], key=_id)
    for text, document in zip(texts[:-1], cut, strict=False):
        page = text.split(join)[0]
        assert document.text == (text if text == first else join.join([page, "See also"]))
    assert cut[-1].text == join.join([pages[40], "ending"])


def test_a_dropped_document_does_not_keep_a_passage(tmp_path: Path, pages: list[str]) -> None:
    """Otherwise all occurrences of the paragraph would be removed."""
    shared = " ".join(pages[60].split()[:12])
    copy = pages[0] + "\n\n" + shared
    other = pages[50] + "\n\n" + shared
    assert _jaccard(pages[0], copy) >= 0.8
    runs = _write(tmp_path, [pages[0]], [copy], [other])
    found = _find(runs, tmp_path / "w", repeated=RepeatedTextSettings(unit="paragraph"))
    assert set(found.within("", END)) == {_id(copy)}
    document = Document(text=other, source="", origin="")
    assert found.without_repeats(document) is document


def test_a_repeated_span_is_removed_to_the_word(tmp_path: Path, pages: list[str]) -> None:
    """A quotation of 50 words need not begin or end at a line break or punctuation."""
    quoted = " ".join(pages[70].split()[:55])
    texts = [
        f"{pages[0]} He said: {quoted}. So it was.\n\nAnd on.",
        f"{pages[1]} She wrote: {quoted.upper()}; {quoted} and more.",
        f"{pages[2]}\n\n{quoted[: len(quoted) // 2]}\n{pages[3]}",
        f"{SCRIPTS[0] * 2}",
        f"{SCRIPTS[0] * 2}结束",
    ]
    runs = _write(tmp_path, *([text] for text in texts))
    found = _find(runs, tmp_path / "w", enabled=False, repeated=RepeatedTextSettings(unit="span", min_words=50))
    cut = [found.without_repeats(Document(text=text, source="s", origin="o")) for text in texts]
    assert [document.id for document in cut] == [_id(text) for text in texts]
    # A span ends at a word. "55." and "55;" are different words, so 54 words are equal.
    words = quoted.split()
    assert cut[0].text == texts[0]
    assert cut[1].text == f"{pages[1]} She wrote: {words[-1].upper()}; {words[-1]} and more."
    assert cut[2].text == texts[2]
    assert cut[3].text == texts[3]
    assert cut[4].text == "结束"


def test_spans_agree_with_a_naive_search(tmp_path: Path, real_documents: list[str]) -> None:
    """The reference searches every window of 8 words in all text before it."""
    rng = random.Random(8)
    vocabulary = " ".join(real_documents).split()[:40]  # few words, so that many spans repeat
    texts = [" ".join(rng.choices(vocabulary[: rng.randint(2, 40)], k=60)) for _ in range(60)]
    runs = _write(tmp_path, texts)
    found = _find(runs, tmp_path / "w", enabled=False, repeated=RepeatedTextSettings(unit="span", min_words=8))
    before: set[tuple[str, ...]] = set()
    for text in sorted(texts, key=_id):
        words = text.split()
        covered: set[int] = set()
        for at in range(len(words) - 7):
            window = tuple(word.lower() for word in words[at : at + 8])
            if window in before:
                covered |= set(range(at, at + 8))
            before.add(window)
        rest = " ".join(word for at, word in enumerate(words) if at not in covered)
        assert found.without_repeats(Document(text=text, source="s", origin="o")).text == rest


def test_a_corpus_drops_and_reports_near_duplicates(tmp_path: Path, pages: list[str], console: Console) -> None:
    """The second corpus is built with the first as an existing corpus."""
    rng = random.Random(9)
    copies = [_changed(page, 1, rng) for page in pages[:20]]
    for folder, texts in (("a", pages[:30]), ("b", copies), ("c", [*pages[10:14], copies[0], *pages[30:40]])):
        (tmp_path / folder).mkdir()
        for number, text in enumerate(texts):
            (tmp_path / folder / f"{number:02d}.txt").write_text(text, encoding="utf-8")

    def build(out: str, *folders: str, **near: object) -> set[str]:
        sources = [FolderSource(path=tmp_path / folder) for folder in folders]
        settings = CorpusSettings(sources=sources, min_bytes=1, filters=[], near_duplicates=near)
        with ProcessPool(1) as pool:
            build_corpus(settings, tmp_path / out, executor=pool, console=console)
        return {d.text for split in ("train", "validation") for d in read_documents(tmp_path / out, split)}

    assert build("first", "a", "b") == set(pages[:30])
    records = {(record.source, record.reason, record.kept) for record in read_drop_log(tmp_path / "first")}
    assert records == {("b", "near-duplicate", _id(page)) for page in pages[:20]}
    clusters = read_card(tmp_path / "first")["near_duplicates"]["clusters"]
    assert len(clusters) == 10  # each with a sample of its dropped documents
    begins = {_id(page): copy[:300] for page, copy in zip(pages, copies, strict=False)}
    assert [cluster["sample"][1] for cluster in clusters] == [begins[cluster["kept"]] for cluster in clusters]
    assert build("second", "c", existing=[tmp_path / "first"]) == set(pages[30:40])
    reasons = sorted((record.reason, record.kept) for record in read_drop_log(tmp_path / "second"))
    assert reasons == sorted(
        [("in another corpus", _id(page)) for page in pages[10:14]] + [("near-duplicate", _id(pages[0]))]
    )
