"""Near-duplicates: found, rightly told apart, and the same whatever happens on the way. Judged by plain Python sets."""

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
    """A copy with some of its words replaced by words that are nowhere else."""
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
    """Pieces of real text of 90 words, no two of them alike."""
    words = " ".join(real_documents).split()
    return [" ".join(words[at : at + 90]) for at in range(0, 60_000, 90)]


@pytest.fixture(scope="module")
def mixed(pages: list[str]) -> list[str]:
    """Those, and a copy of each with one to three words changed: similarities from 0.7 to 1."""
    rng = random.Random(5)
    return [*pages, *(_changed(page, rng.randint(1, 3), rng) for page in pages)]


def test_near_copies_go_and_nothing_else_does(tmp_path: Path, mixed: list[str]) -> None:
    """Candidates alone are a quarter wrong, in every peer: each drop must be right by the exact measure."""
    runs = _write(tmp_path, mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :])
    gone = _find(runs, tmp_path / "work").within("", END)
    texts = {_id(text): text for text in mixed}
    for dropped, fate in gone.items():
        similarity = _jaccard(texts[dropped], texts[fate.kept])
        assert similarity >= 0.8
        assert fate.why.detail == f"J = {similarity:.3f}"
        assert fate.kept not in gone
    half = len(mixed) // 2
    # Pages repeat each other: a copy stays if its page is dropped as a near-duplicate of a page it differs more from.
    kept = [(page, copy) for page, copy in zip(mixed[:half], mixed[half:], strict=True) if _id(page) not in gone]
    planted = [(_id(copy), _jaccard(page, copy)) for page, copy in kept]
    near = [(copy in gone, similarity) for copy, similarity in planted if 0.8 <= similarity < 1]
    assert len(near) > 200
    assert sum(found for found, _ in near) / len(near) > 0.99
    assert all(found for found, similarity in near if similarity > 0.85)


def test_the_earlier_one_stays(tmp_path: Path, pages: list[str]) -> None:
    rng = random.Random(1)
    copies = [_changed(page, 1, rng) for page in pages[:50]]
    first = _find(_write(tmp_path / "1", pages[:50], copies), tmp_path / "1w").within("", END)
    second = _find(_write(tmp_path / "2", copies, pages[:50]), tmp_path / "2w").within("", END)
    assert set(first) <= {_id(copy) for copy in copies}
    assert set(second) <= {_id(page) for page in pages[:50]}
    assert {(fate.kept, dropped) for dropped, fate in first.items()} == {(d, f.kept) for d, f in second.items()}
    assert len(first) >= 49


def test_a_chain_of_small_changes_does_not_make_its_ends_the_same(tmp_path: Path, pages: list[str]) -> None:
    """Components of a graph, as peers drop them, would leave one of these ten, though the ends share little."""
    words = " ".join(pages[:3]).split()
    chain = [" ".join([*(f"new{at}" for at in range(n * 12)), *words[n * 12 :]]) for n in range(10)]
    similar = [_jaccard(a, b) for a, b in pairwise(chain)]
    assert min(similar) >= 0.85
    assert _jaccard(chain[0], chain[-1]) < 0.5
    gone = _find(_write(tmp_path, *([text] for text in chain)), tmp_path / "w").within("", END)
    expected: list[str] = []  # that stay
    for text in chain:
        if all(_jaccard(text, kept) < 0.8 for kept in expected):
            expected.append(text)
    assert 1 < len(expected) < 10
    assert set(gone) == {_id(text) for text in chain if text not in expected}


def test_exact_copies_are_left_to_the_merge(tmp_path: Path, pages: list[str]) -> None:
    """The same text has the same id: if it were in the list, its first copy would go, too, and nothing stay."""
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
    gone = _find(_write(tmp_path, [text], [copy, "x"]), tmp_path / "w").within("", END)
    assert [(dropped, fate.why.detail) for dropped, fate in gone.items()] == [
        (_id(copy), f"J = {_jaccard(text, copy):.3f}")
    ]


def test_short_and_empty_texts(tmp_path: Path) -> None:
    """A text of fewer words than a shingle is one shingle; no words at all are no reason to be alike."""
    runs = _write(tmp_path, ["one two", " one two three\n", "", " ", "\n\n"], ["One  TWO", "two one", "\t"])
    assert {dropped: fate.kept for dropped, fate in _find(runs, tmp_path / "w").within("", END).items()} == {
        _id("One  TWO"): _id("one two")
    }


def test_the_same_in_parts_in_processes_and_after_accidents(
    tmp_path: Path, mixed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _write(tmp_path, *(mixed[at::4] for at in range(4)))
    few = {"bands": 7, "rows": 4}  # bands, so that there are not too many tasks
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


def test_a_million_cookie_banners_would_not_take_a_million_squared(tmp_path: Path, pages: list[str]) -> None:
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


def test_against_a_corpus_that_exists(tmp_path: Path, pages: list[str]) -> None:
    rng = random.Random(4)
    corpus = tmp_path / "old"
    shard = _write(corpus, [*pages[:30], *(_changed(page, 1, rng) for page in pages[:5])])[0]
    shard.rename(corpus / "train-00000.parquet")
    before = (corpus / "train-00000.parquet").read_bytes()
    near = [_changed(page, 1, rng) for page in pages[:10]]
    runs = _write(tmp_path, [*pages[20:40], *near], pages[40:50])
    gone = _find(runs, tmp_path / "w", existing=[corpus]).within("", END)
    assert {_id(text) for text in pages[20:30]} <= set(gone)
    assert {fate.why.reason for d, fate in gone.items() if d in {_id(t) for t in pages[20:30]}} == {"in another corpus"}
    assert len({_id(text) for text in near} & set(gone)) == 10
    assert all(str(corpus) in fate.why.detail for fate in gone.values())
    assert not {_id(text) for text in pages[30:50]} & set(gone)
    assert (corpus / "train-00000.parquet").read_bytes() == before
    only_exact = _find(runs, tmp_path / "exact", existing=[corpus], enabled=False).within("", END)
    assert set(only_exact) == {_id(text) for text in pages[20:30]}
    with pytest.raises(DataError, match="nowhere"):
        _find(runs, tmp_path / "none", existing=[tmp_path / "nowhere"])


def test_settings_that_would_miss_most_are_refused() -> None:
    assert NearDuplicateSettings().candidate_probability(0.8) == pytest.approx(0.986, abs=1e-3)
    with pytest.raises(ValidationError, match="more bands"):
        NearDuplicateSettings(threshold=0.5)
    NearDuplicateSettings(threshold=0.5, bands=60, rows=4)


LICENCE = "Permission is granted to copy this page for any purpose, provided that this notice is left as it is."


@pytest.mark.parametrize(("unit", "join"), [("paragraph", "\n\n"), ("line", "\n")])
def test_a_repeated_passage_stays_where_it_is_first(tmp_path: Path, pages: list[str], unit: str, join: str) -> None:
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


def test_a_passage_is_not_kept_by_a_document_that_goes(tmp_path: Path, pages: list[str]) -> None:
    """Else the only copy of a paragraph would go with a near-duplicate."""
    shared = " ".join(pages[60].split()[:12])
    copy = pages[0] + "\n\n" + shared
    other = pages[50] + "\n\n" + shared
    assert _jaccard(pages[0], copy) >= 0.8
    runs = _write(tmp_path, [pages[0]], [copy], [other])
    found = _find(runs, tmp_path / "w", repeated=RepeatedTextSettings(unit="paragraph"))
    assert set(found.within("", END)) == {_id(copy)}
    document = Document(text=other, source="", origin="")
    assert found.without_repeats(document) is document


def test_a_repeated_span_is_cut_to_the_word(tmp_path: Path, pages: list[str]) -> None:
    """Where a quotation of 50 words begins and ends, no line break and no other mark need be."""
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
    # A stretch ends at a word: "55." and "55;" are words of their own, so 54 words are the same.
    words = quoted.split()
    assert cut[0].text == texts[0]
    assert cut[1].text == f"{pages[1]} She wrote: {words[-1].upper()}; {words[-1]} and more."
    assert cut[2].text == texts[2]
    assert cut[3].text == texts[3]
    assert cut[4].text == "结束"


def test_spans_agree_with_a_search_for_every_stretch(tmp_path: Path, real_documents: list[str]) -> None:
    """The oracle looks for every window of 8 words in all text before it, as words."""
    rng = random.Random(8)
    vocabulary = " ".join(real_documents).split()[:40]  # so few that stretches come again and again
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


def test_a_corpus_is_built_without_them_and_tells_of_each(tmp_path: Path, pages: list[str], console: Console) -> None:
    """From folders to shards; the second corpus is built against the first one."""
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
    fates = {(fate.source, fate.reason, fate.kept) for fate in read_drop_log(tmp_path / "first")}
    assert fates == {("b", "near-duplicate", _id(page)) for page in pages[:20]}
    clusters = read_card(tmp_path / "first")["near_duplicates"]["clusters"]
    assert len(clusters) == 10  # each with the beginning of what was dropped for it, and of nothing else
    begins = {_id(page): copy[:300] for page, copy in zip(pages, copies, strict=False)}
    assert [cluster["sample"][1] for cluster in clusters] == [begins[cluster["kept"]] for cluster in clusters]
    assert build("second", "c", existing=[tmp_path / "first"]) == set(pages[30:40])
    reasons = sorted((fate.reason, fate.kept) for fate in read_drop_log(tmp_path / "second"))
    assert reasons == sorted(
        [("in another corpus", _id(page)) for page in pages[10:14]] + [("near-duplicate", _id(pages[0]))]
    )
