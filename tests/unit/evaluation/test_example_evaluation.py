"""The report on examples: group names come from user data."""

from __future__ import annotations

from groundup.evaluation.example_evaluation import ExampleEvaluation


def test_a_pipe_in_the_name_of_a_group_does_not_add_a_column() -> None:
    groups = {"topic": [("mail|chat", "0.9", "0.8 to 1.0"), ("a\nb", "0.5", "")]}
    page = ExampleEvaluation("Good.", [("accuracy", "0.7", "")], {"columns": "text, label"}, groups).to_markdown()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {row.replace(r"\|", "").count("|") for row in rows} == {4}
    assert any(row.startswith(r"| mail\|chat ") for row in rows) and any(row.startswith("| a b ") for row in rows)
