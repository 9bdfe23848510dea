"""Questions that a model or a server writes are verified, and become examples with exactly the prompt of a reader."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from groundup.apps.adapters import with_application_prompt
from groundup.commands import STAGES, compare, examples_write, index
from groundup.commands.finetune_instruct import FinetuneInstructConfig
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, ResourceError
from groundup.core.recipe import recipe_steps
from groundup.evaluation.reader_comparison import RETRIEVAL, read_questions
from groundup.recipes import bundled
from groundup.retrieval import Index
from groundup.retrieval.answering import PROMPT
from groundup.retrieval.examples import verification, writing
from groundup.retrieval.examples.candidates import answer_candidates
from groundup.retrieval.examples.verification import Verifier
from groundup.retrieval.examples.writers import MODEL_PROMPT, ModelWriter, Pair, ServerWriter, WriterInput, parse_pairs

QUIET = Console(quiet=True)
DOCUMENTS = {
    "bags": "A third checked bag costs 75 euros on all flights to Lisbon and Porto. "
    "Sports equipment must be registered 48 hours before departure at the counter.",
    "refunds": "A refund for a flight is paid within 14 days after the request. "
    "Captain Ines Moreau decides about exceptions for flights to Lisbon.",
    "pets": "A dog may travel in the cabin if it weighs less than 8 kilograms. "
    "The counter for pets on flights to Porto opens at six in the morning.",
    "meals": "A vegetarian meal must be ordered before departure. "
    "Meals on flights to Lisbon are cooked by the chef Paul Ricard.",
}
QUESTIONS = {
    "75 euros": ("How much does a third checked bag cost?", "75 euros"),
    "14 days": ("When is the refund for a flight paid?", "within 14 days"),
    "8 kilograms": ("How much may a dog weigh to travel in the cabin?", "less than 8 kilograms"),
    "Paul Ricard": ("Who is the chef that cooks the meals on flights?", "Paul Ricard"),
}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for name, text in DOCUMENTS.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def indexed(documents: Path, tmp_path: Path) -> Index:
    index.run(index.IndexConfig(source=documents, out=tmp_path / "index"), console=QUIET)
    return Index.open(tmp_path / "index")


class ChatServer(ThreadingHTTPServer):
    """A server with OpenAI's chat completions API, which writes the question that is known for a passage."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.statuses: list[int] = []  # of the next responses; later ones have status 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers.get("Authorization", ""))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        prompt = body["messages"][-1]["content"]
        known = [f"1. {asked} | {answer}" for span, (asked, answer) in QUESTIONS.items() if span in prompt]
        asked = [answer for question, answer in QUESTIONS.values() if prompt.endswith(question)]
        content = (
            f"The answer: {asked[0]}"
            if asked
            else "\n".join(["Here are the questions:", *known, "2. What does the text say? | all of it"])
        )
        answer = {"choices": [{"message": {"role": "assistant", "content": content}}]}
        sent = json.dumps(answer if status == 200 else {"error": {"message": "model not found"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def config(source: Path, out: Path, server: ChatServer, **changes: Any) -> examples_write.ExamplesWriteConfig:
    return examples_write.ExamplesWriteConfig(
        source=source, out=out, server=server.url, server_model="writer", test_fraction=0.4, **changes
    )


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_are_names_numbers_and_dates() -> None:
    text = "In May 1937, Ines de Cruz paid $75 for 23 kilograms. The University of Porto opened on May 27, 1937."
    assert [each.answer for each in answer_candidates(text, "en", 9)] == [
        "May 1937", "Ines de Cruz", "$75", "23 kilograms", "University of Porto", "May 27, 1937",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("How much does a third checked bag cost?", "75 EUROS", None),
        ("How much does a third checked bag cost?", "80 euros", verification.ANSWER_MISSING),
        ("How much does a third checked bag cost", "75 euros", verification.NO_QUESTION),
        ("How much?", "75 euros", verification.NO_QUESTION),
        ("How much does the text say a third bag costs?", "75 euros", verification.REFERS_TO_TEXT),
        ("Which of the bags has a price of 75 euros?", "75 euros", verification.ANSWER_IN_QUESTION),
        ("Who pays the cost of a third checked bag?", "75 euros", verification.OTHER_TYPE),
        ("How much does a third checked bag cost?", "Lisbon", verification.OTHER_TYPE),
        ("A third checked bag costs 75 euros on all flights to what?", "Lisbon", verification.COPIED),
        ("What did the first president of the club in Madrid pay?", "75 euros", verification.NOT_FOUND),
        ("When must the sports equipment be registered at the counter?", "48 hours", None),
        ("Where must the sports equipment be registered before departure?", "Porto", verification.NOT_SUPPORTED),
    ],
)
def test_pairs_are_verified_against_their_passage(
    indexed: Index, question: str, answer: str, reason: str | None
) -> None:
    """Small models invent answers and questions, and copy sentences."""
    passage = next(indexed.passage(n) for n in range(len(indexed)) if "75 euros" in indexed.passage(n).text)
    verifier = Verifier(indexed)
    found = verifier.verify(Pair(question, answer), passage)
    assert [*verifier.dropped] == ([reason] if reason else [])
    if found is not None:
        assert found.answer in passage.text
        assert verifier.verify(Pair(question.upper(), answer), passage) is None
        assert verifier.dropped[verification.DUPLICATE] == 1


def test_passages_with_the_answer_are_no_distractors(indexed: Index) -> None:
    """Lisbon is in several documents, so another document may answer the question as well."""
    passage = next(indexed.passage(n) for n in range(len(indexed)) if "75 euros" in indexed.passage(n).text)
    cost = Verifier(indexed).verify(Pair("How much does a third checked bag cost on flights?", "75 euros"), passage)
    place = Verifier(indexed).verify(Pair("To which city does a third checked bag fly?", "Lisbon"), passage)
    assert cost is not None and all("75 euros" not in each.text for each in cost.distractors)
    assert place is None or place.distractors == ()


def test_a_server_writes_examples_with_the_prompt_of_the_reader(
    indexed: Index, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-key")
    out = tmp_path / "examples"
    made = examples_write.run(config(indexed.directory, out, server, key_variable="MY_KEY"), console=QUIET)
    assert set(server.keys) == {"Bearer secret-key"}
    assert {body["model"] for body in server.bodies} == {"writer"}
    assert made.facts["dropped"] == {verification.REFERS_TO_TEXT: 4}
    train, test = rows(out / "train.jsonl"), rows(out / "test.jsonl")
    answers = {row["question"]: row["answer"] for row in train + test if row["answer"] != "unknown"}
    assert answers == dict(QUESTIONS.values())
    assert {row["origin"] for row in train}.isdisjoint(row["origin"] for row in test)
    for row in train + test:
        assert bool(row["without"]) == (row["answer"] == "unknown")
        assert row["answer"] in (row["text"], "unknown") or row["answer"] in row["text"]
    tuned = with_application_prompt(
        FinetuneInstructConfig(data=str(out / "train.jsonl"), model="m", out="o", application="answer")
    )
    trained = tuned.read(QUIET).found.examples
    expected = {PROMPT.format(passage=row["text"], question=row["question"]): row["answer"] for row in train}
    assert {each.messages[0].content: each.messages[1].content for each in trained} == expected


def test_a_question_that_the_writer_answers_differently_is_dropped(
    indexed: Index, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model often writes a question that another part of the sentence answers."""
    monkeypatch.setattr(ServerWriter, "answer", lambda _, asked: ["Paul Ricard", "75 euros", *"ab"][: len(asked)])
    with pytest.raises(DataError, match="the writer gives another answer"):
        examples_write.run(config(indexed.directory, tmp_path / "out", server), console=QUIET)


def test_the_key_is_not_stored(indexed: Index, server: ChatServer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    examples_write.run(config(indexed.directory, tmp_path / "out", server), console=QUIET)
    assert all("secret-key" not in path.read_text("utf-8") for path in (tmp_path / "out").iterdir())


def test_an_interrupted_run_continues(indexed: Index, server: ChatServer, tmp_path: Path) -> None:
    """A request to a server costs money, so a passage is not sent twice."""
    (tmp_path / "work").mkdir()
    writer = ServerWriter(server.url, "writer", batch_size=1)
    server.statuses = [200, 200, 400]
    with pytest.raises(ConfigError):
        writing.write_pairs(indexed, writer, tmp_path / "work", QUIET, count=3, max_passages=9)
    with (tmp_path / "work" / "pairs.jsonl").open("a") as file:
        file.write('{"passage": 3, "pai')  # killed while it wrote
    server.bodies.clear()
    written = writing.write_pairs(indexed, writer, tmp_path / "work", QUIET, count=3, max_passages=9)
    assert (len(written), len(server.bodies)) == (4, 2)
    assert all(pairs for _, pairs in written)


@pytest.mark.parametrize(
    ("statuses", "error", "message"),
    [
        ([401], ConfigError, "Run export OPENAI_API_KEY=KEY"),
        ([404], ConfigError, "model not found"),
        ([503] * 100, ResourceError, "HTTP status 503"),
    ],
)
def test_errors_of_a_server_are_explained(
    indexed: Index,
    server: ChatServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statuses: Sequence[int],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.statuses = list(statuses) * 4
    with pytest.raises(error, match=message):
        examples_write.run(config(indexed.directory, tmp_path / "out", server), console=QUIET)


def test_a_failure_that_passes_is_tried_again(indexed: Index, server: ChatServer, tmp_path: Path) -> None:
    server.statuses = [429, 503]
    made = examples_write.run(config(indexed.directory, tmp_path / "out", server), console=QUIET)
    assert made.facts["kept"] == 4


def test_an_unreachable_server_is_named(
    indexed: Index, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundup.corpus.fetching.network.retry_delay", lambda *_: 0.0)
    wanted = config(indexed.directory, tmp_path / "out", server)
    server.shutdown()
    server.server_close()
    with pytest.raises(ResourceError, match="Start the server or check the URL"):
        examples_write.run(wanted, console=QUIET)


def test_wrong_settings_are_refused(indexed: Index, server: ChatServer, tmp_path: Path) -> None:
    make = examples_write.ExamplesWriteConfig
    source, out = indexed.directory, tmp_path / "out"
    for wrong, message in (
        (make(source=source, out=out), "--model MODEL, or --server"),
        (make(source=source, out=out, server=server.url), "--server-model NAME"),
    ):
        with pytest.raises(ConfigError, match=message):
            examples_write.run(wrong, console=QUIET)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no files"):
        examples_write.run(config(empty, out, server), console=QUIET)


def test_a_folder_is_indexed_next_to_the_examples(documents: Path, server: ChatServer, tmp_path: Path) -> None:
    examples_write.run(config(documents, tmp_path / "run" / "examples", server), console=QUIET)
    assert len(Index.open(tmp_path / "run" / "examples-index")) == 4


def test_a_completion_is_parsed() -> None:
    text = '- Question: **Who pays?** | Answer: "Ines"\n2) How much is it? | 75 | euros |\nno bar\n | x\nA? |'
    assert parse_pairs(text) == [Pair("Who pays?", "Ines"), Pair("How much is it? | 75", "euros")]


def test_a_model_writes_questions_to_given_answers(engine: Any) -> None:
    from groundup.inference.prompting import format_for

    writer = ModelWriter(engine, format_for(engine.tokenizer, None))
    assert len(writer.answer([("A bag costs 75 euros.", "What costs it?"), ("a " * 5_000, "What?")])) == 2
    written = writer.write([WriterInput("A bag costs 75 euros.", "en"), WriterInput("no names here", "en")], 3)
    assert [[pair.answer for pair in pairs] for pairs in written] == [["75 euros"], []]


def test_readers_are_compared_on_questions_to_the_index(
    indexed: Index, server: ChatServer, chat_directory: Path, tmp_path: Path
) -> None:
    """Without the document of the answer, the same question must be refused."""
    examples_write.run(config(indexed.directory, tmp_path / "examples", server), console=QUIET)
    table = tmp_path / "examples" / "train.jsonl"
    given = compare.CompareConfig(
        base=chat_directory, tuned=chat_directory, data=str(table), index=indexed.directory, out=tmp_path / "compare"
    )
    compare.run(given, console=QUIET)
    lines = json.loads((tmp_path / "compare" / "compare.json").read_text())["lines"]
    names = [line["name"] for line in lines]
    assert names[:3] == ["token F1", "exact match", "answered"]
    assert all(RETRIEVAL in line["beside"] for line in lines)
    asked = read_questions(given.data, 100, QUIET)
    for each in asked:
        found = (indexed.without(each.without) if each.without else indexed).search(each.question, 9)
        held = [passage for passage in found if passage.document_id == each.without]
        assert bool(each.answer) != bool(each.without)
        assert not held


def test_a_question_table_needs_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "q.jsonl"
    table.write_text('{"ask": "Who?", "answer": "Ines"}\n')
    data = compare.CompareConfig(base="b", tuned="t", data=str(table)).data
    with pytest.raises(ConfigError, match="no column 'question'"):
        read_questions(data, 9, QUIET)


def test_the_recipe_of_a_writer_trains_its_prompt() -> None:
    """Otherwise, the prompt of the trained writer would have examples."""
    recipe = tomllib.loads(bundled()["write-questions"].read_text(encoding="utf-8"))
    assert recipe["finetune"]["instruct"]["prompt"] == MODEL_PROMPT


def test_a_recipe_connects_index_examples_training_and_comparison(tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "index": {"source": "notes"},
        "examples": {"write": {"server": "http://127.0.0.1:1/v1", "server_model": "m"}},
        "finetune": {"instruct": {"model": "models/smollm2", "application": "answer"}},
        "compare": {"base": "models/smollm2"},
    }
    steps = {step.stage.name: step.config for step in recipe_steps(recipe, tmp_path, "r.toml", STAGES)}
    assert list(steps) == ["index", "examples.write", "finetune.instruct", "compare"]
    configs: dict[str, Any] = steps
    assert configs["examples.write"].source == tmp_path / "index"
    assert configs["finetune.instruct"].data[0].path == tmp_path / "examples" / "train.jsonl"
    assert configs["finetune.instruct"].test[0].path == tmp_path / "examples" / "test.jsonl"
    assert configs["compare"].data[0].path == tmp_path / "examples" / "test.jsonl"
    assert configs["compare"].index == tmp_path / "index"
    # An index that the user built in the directory of a run does not change its comparison.
    (tmp_path / "index").mkdir(exist_ok=True)
    del recipe["index"], recipe["examples"]
    recipe["finetune"]["instruct"]["data"] = "q.jsonl"
    other: dict[str, Any] = {s.stage.name: s.config for s in recipe_steps(recipe, tmp_path, "r.toml", STAGES)}
    assert other["compare"].index is None and not other["finetune.instruct"].test
