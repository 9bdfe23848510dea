"""Questions that a model or a server writes are verified, and become examples with exactly the prompt of a reader."""

from __future__ import annotations

import json
import re
import threading
import tomllib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from groundup.apps.application_models import with_application_prompt
from groundup.commands import STAGES, compare, examples_write, index
from groundup.commands.finetune_instruct import FinetuneInstructConfig
from groundup.core.console import Console
from groundup.core.errors import ConfigError, DataError, ResourceError
from groundup.core.recipe import recipe_steps
from groundup.evaluation.comparisons.readers import RETRIEVAL, read_questions
from groundup.recipes import bundled
from groundup.retrieval import Index
from groundup.retrieval.answering import PROMPT, Reader
from groundup.retrieval.examples import verification, writers, writing
from groundup.retrieval.examples.candidates import answer_candidates
from groundup.retrieval.examples.verification import VerifiedPair, Verifier
from groundup.retrieval.examples.writers import MODEL_PROMPT, ModelWriter, Pair, ServerWriter, WriterInput, parse_pairs
from groundup.retrieval.index import Passage

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


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("第三件托运行李的费用为七十五欧元。", "七十五欧元", True),
        ("第三件托运行李的费用为75欧元。", "75", True),
        ("第三件托运行李的费用为75欧元。", "5", False),
        ("三つ目の手荷物の料金は七十五ユーロです。", "七十五ユーロ", True),
        ("ค่ากระเป๋าใบที่สามคือเจ็ดสิบห้ายูโร", "เจ็ดสิบห้ายูโร", True),
        ("The costs are 75 euros.", "cost", False),
    ],
)
def test_answers_in_scripts_without_spaces_are_found(text: str, answer: str, found: bool) -> None:
    assert verification._span(answer, text) == (answer if found else "")


def test_pairs_in_chinese_are_usable(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    bags = "每位旅客的第三件托运行李的费用为七十五欧元。运动器材必须在出发前登记。"
    (folder / "bags.txt").write_text(bags, encoding="utf-8")
    (folder / "pets.txt").write_text("体重较轻的狗可以在客舱内旅行。宠物柜台在早上六点开放。", encoding="utf-8")
    index.run(index.IndexConfig(source=folder, out=tmp_path / "index"), console=QUIET)
    documents = Index.open(tmp_path / "index")
    passage = next(documents.passage(n) for n in range(len(documents)) if "欧元" in documents.passage(n).text)
    verifier = Verifier(documents)
    assert verifier.verify(Pair("旅客的第三件托运行李收多少费用？", "七十五欧元"), passage), verifier.dropped


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
    fine_tuned = with_application_prompt(
        FinetuneInstructConfig(data=str(out / "train.jsonl"), model="m", out="o", application="answer")
    )
    trained = fine_tuned.read(QUIET).found.examples
    expected = {PROMPT.format(passage=row["text"], question=row["question"]): row["answer"] for row in train}
    assert {each.messages[0].content: each.messages[1].content for each in trained} == expected


def test_a_question_that_the_reader_answers_differently_is_dropped(
    indexed: Index, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model often writes a question that another part of the sentence answers."""
    monkeypatch.setattr(ServerWriter, "answer", lambda _, asked: ["Paul Ricard", "75 euros", *"ab"][: len(asked)])
    with pytest.raises(DataError, match="the reader gives another answer"):
        examples_write.run(config(indexed.directory, tmp_path / "out", server), console=QUIET)


def test_another_model_can_check_the_answers(
    indexed: Index, server: ChatServer, tmp_path: Path, base_directory: Path
) -> None:
    """The writer is not asked for the answers; a reader with random weights agrees with none of them."""
    with pytest.raises(DataError, match=f"{len(QUESTIONS)} the reader gives another answer"):
        examples_write.run(config(indexed.directory, tmp_path / "out", server, reader=base_directory), console=QUIET)
    asked = {question for question, _ in QUESTIONS.values()}
    assert not any(body["messages"][-1]["content"].endswith(tuple(asked)) for body in server.bodies)


def test_the_key_is_not_stored(indexed: Index, server: ChatServer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    wanted = config(indexed.directory, tmp_path / "out", server, key_variable="OPENAI_API_KEY")
    examples_write.run(wanted, console=QUIET)
    assert all("secret-key" not in path.read_text("utf-8") for path in (tmp_path / "out").iterdir())


def test_an_interrupted_run_continues(indexed: Index, server: ChatServer, tmp_path: Path) -> None:
    """A request to a server costs money, so a passage is not sent twice."""
    (tmp_path / "work").mkdir()
    writer = ServerWriter(server.url, "writer", batch_size=1)
    server.statuses = [200, 200, 404]
    with pytest.raises(ConfigError):
        writing.write_pairs(indexed, writer, tmp_path / "work", QUIET, count=3, max_passages=9)
    with (tmp_path / "work" / "pairs.jsonl").open("ab") as file:
        file.write('{"passage": 3, "pairs": [{"question": "é'.encode()[:-1])  # killed inside a character
    server.bodies.clear()
    written = writing.write_pairs(indexed, writer, tmp_path / "work", QUIET, count=3, max_passages=9)
    assert (len(written), len(server.bodies)) == (4, 2)
    assert all(pairs for _, pairs in written)


@pytest.mark.parametrize(
    ("statuses", "error", "message"),
    [
        ([401], ConfigError, "Run export NAME=KEY with your API key and give --key-variable NAME"),
        ([404], ConfigError, "model not found"),
        ([400], ConfigError, "model not found"),
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


def test_a_rejected_passage_is_dropped(indexed: Index, server: ChatServer, tmp_path: Path) -> None:
    """A prompt can be too long for the server, or refused by its content filter."""
    server.statuses = [400]
    made = examples_write.run(config(indexed.directory, tmp_path / "out", server), console=QUIET)
    assert made.facts["dropped"][writing.REJECTED] == 1
    assert made.facts["kept"] == 3


def test_rejected_passages_are_not_sent_again(indexed: Index, server: ChatServer, tmp_path: Path) -> None:
    writer = ServerWriter(server.url, "writer", batch_size=1)
    server.statuses = [400, 200, 404]
    with pytest.raises(ConfigError):
        writing.write_pairs(indexed, writer, tmp_path, QUIET, count=3, max_passages=9)
    server.bodies.clear()
    written = writing.write_pairs(indexed, writer, tmp_path, QUIET, count=3, max_passages=9)
    assert len(server.bodies) == 2
    assert [pairs is None for _, pairs in written] == [True, False, False, False]


def test_line_separators_in_stored_answers_are_read(tmp_path: Path) -> None:
    stored = [{"question": "Who?", "answer": "Ines\u2028Moreau\x85"}, {"question": "When?", "answer": "May"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in stored)
    (tmp_path / "answers.jsonl").write_bytes(text.encode() + '{"question": "é'.encode()[:-1])
    assert writing._stored_rows(tmp_path / "answers.jsonl") == stored
    assert (tmp_path / "answers.jsonl").read_bytes() == text.encode()


@pytest.mark.parametrize("key", ["sk-secret", "sk-secret\r\n", " sk-secret"])
def test_white_space_around_a_key_is_removed(server: ChatServer, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    writer = writers.open_server_writer(server.url, "writer", "MY_KEY")
    writer.write([WriterInput("75 euros", "en")], 1)
    assert server.keys == ["Bearer sk-secret"]
    assert "sk-secret" not in repr(writer)


def test_a_key_that_cannot_be_sent_is_not_printed(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-se\rcret")
    with pytest.raises(ConfigError, match="the key in MY_KEY") as raised:
        writers.open_server_writer(server.url, "writer", "MY_KEY")
    assert "cret" not in str(raised.value)
    with pytest.raises(ResourceError) as failed:
        ServerWriter(server.url, "writer", "sk-secret\r").write([WriterInput("75 euros", "en")], 1)
    assert "sk-secret" not in str(failed.value)


def test_the_key_of_openai_is_sent_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    for url, variable, key in (
        ("https://api.openai.com/v1", None, "sk-secret"),
        ("https://api.openai.com.example.org/v1", None, ""),
        ("https://api.openai.com@example.org/v1", None, ""),
        ("http://api.openai.com/v1", None, ""),  # not encrypted
        ("http://127.0.0.1:8080/v1", None, ""),
        ("http://127.0.0.1:8080/v1", "OPENAI_API_KEY", "sk-secret"),
    ):
        assert writers.open_server_writer(url, "writer", variable).key == key, url


def test_the_login_of_a_server_is_not_recorded(
    indexed: Index, server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = config(indexed.directory, tmp_path / "out", server)
    wanted = wanted.model_copy(update={"server": server.url.replace("://", "://ines:pass%2Fword@")})
    examples_write.run(wanted, console=Console())
    server.statuses = [404] * 4
    with pytest.raises(ConfigError) as raised:
        examples_write.run(wanted.model_copy(update={"out": tmp_path / "other"}), console=Console())
    assert set(server.keys) == {"Basic aW5lczpwYXNzL3dvcmQ="}
    stored = [path.read_text("utf-8") for path in tmp_path.glob("o*/*.json*")]
    assert stored
    assert all("pass" not in re.sub("passage", "", each) for each in [*stored, str(raised.value), *capfd.readouterr()])


@pytest.mark.parametrize("url", ["http://ines:se/cret@host/v1", "ftp://host/v1", "host:8080/v1", "http://ho st/v1"])
def test_an_invalid_url_is_refused_without_its_login(url: str) -> None:
    with pytest.raises(ConfigError, match="--server is not a valid URL") as raised:
        writers.open_server_writer(url, "writer", None)
    assert "cret" not in str(raised.value)


def verified(document: str, start: int, *, near: Sequence[tuple[str, int]] = ()) -> VerifiedPair:
    def passage(name: str, at: int) -> Passage:
        return Passage(0, name, "", "", None, at, at + 20, f"Text {at} of {name}.", "en", 1.0, 1.0, name)

    return VerifiedPair(
        f"{document} {start}?", "Text", passage(document, start), tuple(passage(*each) for each in near)
    )


@pytest.mark.parametrize("sizes", [(90, 10), (10, 90), (50, 50), (1, 1), (1, 98, 1), (20,) * 5])
def test_a_large_document_is_no_test_set(sizes: tuple[int, ...]) -> None:
    pairs = [verified(f"document {n}", at) for n, size in enumerate(sizes) for at in range(size)]
    train, test = writing.split_pairs(pairs, 0.2)
    assert 0 < len(test) <= max(0.2 * len(pairs), min(sizes))
    assert len(train) + len(test) == len(pairs)
    assert {each.passage.document_id for each in train}.isdisjoint(each.passage.document_id for each in test)


def test_a_single_document_is_split_by_its_passages() -> None:
    near = [("a", at) for at in range(0, 1000, 100)]
    pairs = [verified("a", at, near=[each for each in near if each[1] != at]) for at in range(0, 1000, 100)]
    parts = writing.split_pairs(pairs, 0.2)
    shown = [{row.text for row in writing.example_rows(part, pairs, 9)} for part in parts]
    assert [len(texts) for texts in shown] == [8, 2]
    assert shown[0].isdisjoint(shown[1])
    with pytest.raises(DataError, match="about one passage"):
        writing.split_pairs([verified("a", 0), verified("a", 0)], 0.2)


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


def test_a_model_checks_answers_with_the_prompt_of_the_reader(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passage that does not fit is truncated as by `groundup ask`."""
    from groundup.inference.prompting import format_for

    form, long, question = format_for(engine.tokenizer, None), "A bag costs 75 euros. " * 500, "What costs  it?"
    sent: list[Any] = []
    monkeypatch.setattr(engine, "complete_all", lambda requests: sent.extend(requests) or [])
    with pytest.raises(ValueError, match="zip"):  # the patched engine returns nothing
        ModelWriter(engine, form).answer([(long, question)])
    expected = Reader(engine, form, max_tokens=24)._request(question, long)
    assert (sent[0].prompt, sent[0].max_tokens) == (expected.prompt, expected.max_tokens)
    assert len(expected.prompt) + expected.max_tokens <= engine.model.config.context_length


def test_readers_are_compared_on_questions_to_the_index(
    indexed: Index, server: ChatServer, chat_directory: Path, tmp_path: Path
) -> None:
    """Without the document of the answer, the same question must be refused."""
    examples_write.run(config(indexed.directory, tmp_path / "examples", server), console=QUIET)
    table = tmp_path / "examples" / "train.jsonl"
    given = compare.CompareConfig(
        base=chat_directory,
        fine_tuned=chat_directory,
        data=str(table),
        index=indexed.directory,
        out=tmp_path / "compare",
    )
    compare.run(given, console=QUIET)
    lines = json.loads((tmp_path / "compare" / "compare.json").read_text())["lines"]
    names = [line["name"] for line in lines]
    assert names[:3] == ["token F1", "exact match", "answered"]
    assert all(RETRIEVAL in line["baselines"] for line in lines)
    asked = read_questions(given.data, 100, QUIET)
    for each in asked:
        found = (indexed.without(each.without) if each.without else indexed).search(each.question, 9)
        held = [passage for passage in found if passage.document_id == each.without]
        assert bool(each.answer) != bool(each.without)
        assert not held


def test_a_question_table_needs_its_columns(tmp_path: Path) -> None:
    table = tmp_path / "q.jsonl"
    table.write_text('{"ask": "Who?", "answer": "Ines"}\n')
    data = compare.CompareConfig(base="b", fine_tuned="t", data=str(table)).data
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
