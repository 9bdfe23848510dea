"""Outputs copy from the input: spans as options and answers, and no other numbers and names."""

from __future__ import annotations

import jsonschema
import pytest

from groundup.apps import Catalog
from groundup.apps.copying import position_of, schema_with_spans, unsupported_facts, without_repeated_sentences
from groundup.apps.declaration import fill_numbers
from groundup.apps.lettered_options import ANSWER, WRONG, with_letters
from groundup.apps.output_checks import check_output
from groundup.apps.prompter import Options
from groundup.apps.runner import AppRunner
from groundup.inference import Engine
from groundup.tokenizer.chat import ChatTemplate

BUNDLED = Catalog()
SCHEMA = BUNDLED["mcq"].app.output.written_schema
TEXT = (
    "The council voted by nine to six to keep the old tram depot in Harwick. A fund of 300,000 euros pays for a new "
    "roof, which Mirela Costa designed. Ben Lund wanted to sell it to a hotel chain for two million euros."
)


@pytest.mark.parametrize("seed", range(3))
def test_options_are_spans_even_from_a_random_model(engine: Engine, template: ChatTemplate, seed: int) -> None:
    """A small model writes options such as "A." and "B.": the grammar must enforce spans of one type that differ."""
    app = BUNDLED["mcq"].app
    assert app.test is not None
    result = AppRunner(engine, template).run(app, {"text": TEXT, "count": 2}, Options(temperature=1.0, seed=seed))
    jsonschema.validate(result.value, fill_numbers(app.output.json_schema, {"count": 2}))
    checks = check_output(app.test.checks, result.text, result.value, {"text": TEXT}, valid=True)
    assert {name for name, passed in checks.items() if not passed} <= {"questions about the text"}, result


def test_questions_of_a_text_have_different_options() -> None:
    """SmolLM2 chose the same four options for each question of a text."""
    schema = fill_numbers(SCHEMA, {"count": 2})
    names = " ".join(
        f"It was {name} Stone." for name in ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida")
    )
    offered = []
    for question in (schema_with_spans(schema, [WRONG], names) or {})["properties"]["questions"]["prefixItems"]:
        for variant in question["anyOf"]:
            of = variant["properties"]
            wrong = {span for group in of[WRONG]["prefixItems"] for span in group["enum"]}
            assert wrong.isdisjoint(of[ANSWER]["enum"])
        offered.append(wrong | set(of[ANSWER]["enum"]))
    assert len(offered) == 2 and not offered[0] & offered[1] and len(offered[0] | offered[1]) == 9
    few = schema_with_spans(schema, [WRONG], TEXT) or {}
    first, second = few["properties"]["questions"]["prefixItems"]
    assert first == second, "a text with few spans offers all of them for each question"


def test_a_text_without_spans_has_no_constraint() -> None:
    assert schema_with_spans(SCHEMA, [WRONG], "Go on, they said to us.") is None


def test_readers_get_letters() -> None:
    """A small model cannot write a question for a letter, so it writes the answer itself."""
    written = {"questions": [{"answer": "a", "question": f"Who {n}?", "wrong": ["b", "c", "d"]} for n in range(40)]}
    shown = with_letters(written, "options")["questions"]
    assert all(sorted(each["options"]) == ["a", "b", "c", "d"] for each in shown)
    assert all(each["options"]["ABCD".index(each["answer"])] == "a" for each in shown)
    assert {each["answer"] for each in shown} == set("ABCD"), "no letter is preferred"
    assert with_letters(written, "options") == {"questions": shown}


def test_an_answer_is_a_span_with_its_position(engine: Engine, template: ChatTemplate) -> None:
    result = AppRunner(engine, template).run(BUNDLED["answer"].app, {"text": TEXT, "question": "Who designed it?"})
    if result.text and result.text != "unknown":
        assert result.position is not None
        start, end = result.position
        assert TEXT[start:end].casefold() == result.text.casefold()
    assert not result.text or result.text == "unknown" or result.text in TEXT
    unknown = AppRunner(engine, template).run(BUNDLED["answer"].app, {"text": "It is unknown.", "question": "Who?"})
    assert unknown.text != "unknown" or unknown.position is None, "an answer that is not copied has no position"
    assert position_of("Mirela Costa", TEXT) == (TEXT.index("Mirela"), TEXT.index("Mirela") + len("Mirela Costa"))


@pytest.mark.parametrize(
    ("output", "text", "position"),
    [
        ("5", "15 of 5 voted.", (6, 7)),
        ("art", "At the start, art was new.", (14, 17)),
        ("art", "At the start.", None),
        ("東京", "私は東京に住んでいる。", (2, 4)),
        ("$5", "It costs US$5.", (11, 13)),
    ],
)
def test_only_whole_words_have_a_position(output: str, text: str, position: tuple[int, int] | None) -> None:
    assert position_of(output, text) == position


def test_german_nouns_are_not_names() -> None:
    """Each German noun is capitalized: as names, they would make every other wording a fault."""
    source = "Der Rat der Stadt stimmte mit neun zu sechs Stimmen dafür, das alte Depot der Straßenbahn zu erhalten."
    output = "Im Ergebnis der Abstimmung bleibt das Gebäude, das im Jahr 1887 entstand, für die Bürger erhalten."
    assert unsupported_facts(output, source) == ["1887"]


@pytest.mark.parametrize(
    ("output", "wrong"),
    [
        ("The council keeps the depot. Its new roof costs 300000 euros.", []),
        ("Mirela Costa's roof costs 300,000 euros, and 9 of 15 voted for it.", ["15"]),
        ("The depot in Harwick was built in 1887 by Tomas Reyk.", ["1887", "Tomas", "Reyk"]),
        ("Seven people voted.", ["Seven"]),
        ("Today I'm sure that I know.", []),
        ("Two million euros were offered. In Harwick, nobody agreed.", []),
    ],
)
def test_numbers_and_names_that_the_text_lacks_are_found(output: str, wrong: list[str]) -> None:
    assert unsupported_facts(output, TEXT) == wrong


def test_repeated_sentences_are_removed() -> None:
    text = "The roof leaks. It is old. The roof leaks.\n\nIt is old."
    assert without_repeated_sentences(text) == "The roof leaks. It is old."


def test_a_summary_with_an_invented_name_is_generated_again(engine: Engine, template: ChatTemplate) -> None:
    """The text that is streamed must be the output that was chosen, and not the first attempt."""
    shown: list[str] = []
    result = AppRunner(engine, template).run(
        BUNDLED["summarize"].app, {"text": TEXT}, Options(max_tokens=20), on_text=shown.append
    )
    assert "".join(shown) == result.text
    assert not unsupported_facts(result.text, TEXT) or any("Not in the text" in note for note in result.notes)
