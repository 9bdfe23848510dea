"""Filters drop boilerplate and keep prose. Each rule is tested alone, at its published threshold."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from pathlib import Path

import pytest

from groundup.core.config import load
from groundup.core.errors import ConfigError, DataError
from groundup.core.types import Document
from groundup.corpus.quality import C4, FilterSettings, FineWeb, GopherQuality, GopherRepetition, filter_steps
from groundup.corpus.steps import Drop, Step

PROSE = (
    "When in the Course of human events, it becomes necessary for one people to dissolve the political bands "
    "which have connected them with another, and to assume among the powers of the earth, the separate and "
    "equal station to which the Laws of Nature and of Nature's God entitle them, a decent respect to the "
    "opinions of mankind requires that they should declare the causes which impel them to the separation."
)
GERMAN = (
    "Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem Bett zu einem ungeheueren "
    "Ungeziefer verwandelt. Er lag auf seinem panzerartig harten Rücken und sah, wenn er den Kopf hob, seinen "
    "gewölbten, braunen, von bogenförmigen Versteifungen geteilten Bauch, auf dessen Höhe sich die Bettdecke, zum "
    "gänzlichen Niedergleiten bereit, kaum noch erhalten konnte."
)
CHINESE = (
    "道可道，非常道；名可名，非常名。無名天地之始，有名萬物之母。"
    "故常無欲，以觀其妙；常有欲，以觀其徼。此兩者同出而異名，同謂之玄。玄之又玄，眾妙之門。"
)


def _document(text: str, language: str = "") -> Document:
    return Document(text=text, source="s", origin="o", language=language)


def _reason(step: Step, text: str, language: str = "") -> str | None:
    outcome = step(_document(text, language))
    return outcome.reason if isinstance(outcome, Drop) else None


@pytest.mark.parametrize("name", ["gopher_repetition", "gopher_quality", "fineweb"])
@pytest.mark.parametrize("text", [PROSE, GERMAN, CHINESE])
def test_prose_is_kept_unchanged(name: str, text: str) -> None:
    """Rules for English words must not drop other languages, or scripts without spaces."""
    document = _document(text)
    assert filter_steps([name])[name](document) is document


def test_short_text_without_repetition_is_kept() -> None:
    """A 2-gram is more than 20 % of a ten-word text, but it occurs once."""
    assert _reason(GopherRepetition(), "Extraordinary circumstances demand unconventional solutions.") is None


@pytest.mark.parametrize(
    "line",
    [
        "A man in a blue shirt and a man in a red shirt stand in front of a wall.",
        "What is the capital of France? The capital of France is Paris.",
        "Does the man in the park play chess? Yes, the man in the park plays chess.",
    ],
)
def test_short_line_with_one_repetition_is_kept(line: str) -> None:
    """Gopher's thresholds are for at least 50 words. They would drop half of all captions."""
    assert _reason(GopherRepetition(), line) is None
    assert _reason(GopherRepetition(short_document_words=0), line) is not None


def test_real_pages_are_kept(real_documents: list[str]) -> None:
    """If overlaps counted twice, the thresholds would drop most pages of a manual."""
    pages = [text for text in real_documents if len(text) > 500]
    assert sum(_reason(GopherRepetition(), text) is not None for text in pages) < 0.15 * len(real_documents)
    assert sum(_reason(GopherQuality(), text) is not None for text in pages) < 0.25 * len(real_documents)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(["Home | About | Contact"] * 3 + ["A page of its own."]), "duplicate lines"),
        ("\n".join(["x" * 400, "x" * 400, *"abcdefgh"]), "characters in duplicate lines"),
        (PROSE + "\n\n" + "\n\n".join(["Sign up\nfor news", "Sign up\nfor offers"] * 4), "duplicate lines"),
        ("buy now " * 40, "top 2-gram"),
        ("ha ha ha ha ha ha ha ha", "top 2-gram"),
        (f"{PROSE} And again: {PROSE}", "duplicate 5-grams"),
        ("玄之又玄眾妙之門" * 20, "top 2-gram"),
    ],
)
def test_repetition_has_a_reason(text: str, reason: str) -> None:
    assert _reason(GopherRepetition(), text) == reason


def test_repetition_agrees_with_a_naive_count(real_documents: list[str]) -> None:
    """Counting tuples in loops must give the same shares as sorted hashes."""
    thresholds = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    only_duplicates = GopherRepetition(
        duplicate_lines=1, duplicate_line_characters=1, duplicate_paragraphs=1, duplicate_paragraph_characters=1,
        top_ngrams=[], short_document_words=0,
    )  # fmt: skip
    broken = 0
    for text in [*real_documents[:150], f"{PROSE} {PROSE[:170]}"]:
        words = text.split()
        expected = None
        for n, most in thresholds.items():
            seen, covered = set(), set()
            for at in range(len(words) - n + 1):
                ngram = tuple(words[at : at + n])
                if ngram in seen:
                    covered.update(range(at, at + n))
                seen.add(ngram)
            if sum(len(words[at]) for at in covered) > most * sum(map(len, words)):
                expected = f"duplicate {n}-grams"
                break
        assert _reason(only_duplicates, text) == expected
        broken += expected is not None
    assert broken


def test_top_ngram_is_the_most_frequent_one() -> None:
    words = [f"w{number}" for number in range(60)]
    for at in range(0, 60, 6):
        words[at : at + 2] = ["again", "again?"]
    share = 10 * len("againagain?") / len("".join(words))
    only_top = GopherRepetition(top_ngrams=[share + 0.001], duplicate_ngrams=[])
    assert _reason(only_top, " ".join(words)) is None
    assert _reason(GopherRepetition(top_ngrams=[share - 0.001], duplicate_ngrams=[]), " ".join(words)) == "top 2-gram"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" ".join(PROSE.split()[:49]), "too few words"),
        (PROSE.split()[0] + " the and" * 60_000, "too many words"),
        ("a b c of to be I " * 10, "words too short"),
        ("with incomprehensibilities the " * 20 + "counterrevolutionaries " * 20, "words too long"),
        (PROSE.replace(" t", " #t"), "too many hash signs"),
        (PROSE.replace(" t", " … t"), "too many ellipses"),
        ("\n".join(f"- {word} of the" for word in PROSE.split()), "too many bullet lines"),
        (PROSE.replace(", ", "...\n"), "too many lines end in ..."),
        (PROSE + " 12 / 34" * 12, "too few words with letters"),
        (" ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(60)), "too few stop words"),
    ],
)
def test_gopher_quality_has_a_reason(text: str, reason: str) -> None:
    assert _reason(GopherQuality(max_ellipsis_lines=0.3), text, "en") == reason


def test_stop_words_of_the_language_are_used() -> None:
    assert _reason(GopherQuality(), GERMAN, "de") is None
    assert _reason(GopherQuality(), GERMAN, "en") == "too few stop words"
    assert _reason(GopherQuality(), GERMAN, "ceb") is None  # no stop words of Cebuano


def test_c4_removes_lines() -> None:
    text = "\n".join(
        [
            "Home | Products | Contact",
            "The first sentence stands here. The second one, too.",
            "",
            "Please enable Javascript to see this page.",
            "We use cookies to make you happy.",
            "“A third one,” she said, “is quoted.”",
            "Too short.",
            "This one was cut off in the...",
            "Paris[1] is the capital[citation needed] of France. It has 2.1 million inhabitants. J. S. Bach was not.",
            "x" * 1001 + " is no word.",
        ]
    )
    outcome = C4()(_document(text))
    assert isinstance(outcome, Document)
    assert outcome.text == (
        "The first sentence stands here. The second one, too.\n\n“A third one,” she said, “is quoted.”\n"
        "Paris is the capital of France. It has 2.1 million inhabitants. J. S. Bach was not."
    )
    assert outcome.id != _document(text).id
    assert outcome.id == _document(outcome.text).id


def test_c4_drops_documents(tmp_path: Path) -> None:
    page = "One sentence is here. Two are here. Three are here. Four are here. Five are here."
    assert _reason(C4(), page) is None
    assert _reason(C4(), page.replace(" Five are here.", "")) == "too few sentences"
    assert _reason(C4(), "這是第一句話。" * 5) is None
    assert _reason(C4(), page + " Lorem ipsum dolor sit amet.") == "lorem ipsum"
    assert _reason(C4(), page + " int main() { }") == "curly bracket"
    words = tmp_path / "words.txt"
    words.write_text("Scunthorpe\nrude word\n惡語\n", encoding="utf-8")
    assert _reason(C4(bad_words=words), page + " A rude word fell.") == "bad word"
    assert _reason(C4(bad_words=words), page + " A rude wording fell.") is None
    assert _reason(C4(bad_words=words), "這是第一句話。" * 5 + "這裡有惡語呢。") == "bad word"
    with pytest.raises(DataError):
        C4(bad_words=tmp_path / "none.txt")(_document(page))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("\n".join(["A line of text without an end that goes on and on", *["and so on and so on and so on"] * 2] * 3),
         "too few lines end in punctuation"),
        ("\n".join(f"Line {number}." for number in range(20)), "too many short lines"),
        (f"{PROSE}\nRead more of this every day.\n{PROSE}", "characters in duplicate lines"),
        ("\n".join(f"Incomprehensibilities{number} incomprehensibilities." for number in range(9)),
         "too many line breaks"),
    ],
)  # fmt: skip
def test_fineweb_has_a_reason(text: str, reason: str) -> None:
    assert _reason(FineWeb(), text) == reason


def test_filters_by_name_with_thresholds_from_a_recipe() -> None:
    settings = load(FilterSettings, {"gopher_quality": {"min_words": 20}, "c4": {"terminal_punctuation": False}})
    steps = filter_steps(["c4", "gopher_quality"], settings)
    assert list(steps) == ["c4", "gopher_quality"]
    assert pickle.loads(pickle.dumps(steps)) == steps
    assert _reason(steps["gopher_quality"], " ".join(PROSE.split()[:30])) is None
    with pytest.raises(ConfigError, match="did you mean 'gopher_quality'"):
        filter_steps(["gopher_qualty"])
    with pytest.raises(ConfigError, match=r"did you mean 'gopher_quality\.min_words'"):
        load(FilterSettings, {"gopher_quality": {"min_word": 20}})


@pytest.mark.parametrize(
    ("table", "old", "new"),
    [
        ("c4", "end_mark", "terminal_punctuation"),
        ("fineweb", "min_marked_lines", "min_punctuated_lines"),
        ("gopher_quality", "min_lettered_words", "min_alphabetic_words"),
        ("gopher_repetition", "short_words", "short_document_words"),
    ],
)
def test_old_names_of_thresholds_name_the_new_ones(table: str, old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=new):
        load(FilterSettings, {table: {old: 0}})


def test_details_give_value_and_limit() -> None:
    assert GopherQuality()(_document("Too short.")) == Drop("too few words", "2, at least 50")


@pytest.mark.parametrize("text", ["", " \n \n ", "\n", "\u3000", "\ud800", "٣ ٤", "{", "...", "。"])
def test_nothing_raises(text: str) -> None:
    """Texts without words must not divide by zero."""
    for step in filter_steps(list(FilterSettings.model_fields)).values():
        step(_document(text))
    assert GopherQuality(min_words=0)(_document(text)) is not None


def test_adversarial_texts_are_fast() -> None:
    """Backtracking, or a loop over pairs, would take minutes."""
    begun = time.process_time()
    for text in (
        "." * 200_000,
        ". a" * 70_000,
        "「" * 100_000,
        "A. " * 70_000,
        "\n" * 200_000,
        "a " * 100_000,
        "[" * 200_000,
        ("." * 999 + " ") * 200,
    ):
        for step in filter_steps(
            list(FilterSettings.model_fields), FilterSettings(c4=C4(terminal_punctuation=False))
        ).values():
            step(_document(text))
    assert time.process_time() - begun < 20


def test_reasons_are_few(real_documents: list[str]) -> None:
    """A reason with a measured value would add a row to the card for every document."""
    steps = filter_steps(list(FilterSettings.model_fields)).values()
    found = Counter(reason for text in real_documents for step in steps if (reason := _reason(step, text)))
    assert len(found) < 30
