"""lm-evaluation-harness with its `hf` model gives the scores of `groundup evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from groundup.commands.evaluate import EvaluateConfig, run
from groundup.core.errors import ConfigError
from groundup.data.choices import read_choices
from groundup.data.tables import read_table
from groundup.evaluation.choices import score_choices

pytestmark = pytest.mark.interop
lm_eval = pytest.importorskip("lm_eval", reason="pip install '.[interop]'")

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: "{prompt}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: "{delimiter}"
metric_list:
  - metric: acc
  - metric: acc_bytes
"""


@pytest.fixture(scope="module")
def questions(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Which line follows? Real lines, some in other scripts, with choices of unequal length."""
    lines = [line.strip() for text in real_documents for line in text.splitlines() if 30 < len(line.strip()) < 90]
    path = tmp_path_factory.mktemp("task") / "questions.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(40):
            start = 60 * number
            choices = [lines[start + 1], lines[start + 20][:12], f"größer {lines[start + 30]}", "Да"]
            place = number % 4
            choices[0], choices[place] = choices[place], choices[0]
            item = {"question": lines[start], "choices": choices, "answer": place}
            file.write(json.dumps(item, ensure_ascii=False) + "\n")
    return path


def theirs(directory: Path, questions: Path, folder: Path, prompt: str) -> dict[str, Any]:
    from lm_eval.tasks import TaskManager

    task = TASK.format(name="ours", file=questions, prompt=prompt.replace("\n", "\\n"), delimiter=" " if prompt else "")
    (folder / "ours.yaml").write_text(task, encoding="utf-8")
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(directory), "dtype": "float32"},
        tasks=["ours"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
        log_samples=True,
    )
    return found


@pytest.mark.parametrize("prompt", ["Question: {{question}}\nAnswer:", ""])
def test_scores_equal_lm_evaluation_harness(
    prompt: str, our_model: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    compare(our_model, questions, tmp_path, prompt)


def compare(directory: Path, questions: Path, folder: Path, prompt: str) -> None:
    from groundup.hub.loading import open_model

    data = questions
    if not prompt:  # Without a prompt, each choice is scored after BOS.
        data = folder / "bare.jsonl"
        items = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
        bare = [json.dumps({key: item[key] for key in ("choices", "answer")}, ensure_ascii=False) for item in items]
        data.write_text("\n".join(bare) + "\n", encoding="utf-8")
    found = theirs(directory, data, folder, prompt)
    made = run(EvaluateConfig(model=directory, data=data, out=folder / "report"))
    expected = found["results"]["ours"]
    assert made.facts["accuracy"]["value"] == pytest.approx(expected["acc,none"], abs=1e-3)
    assert made.facts["accuracy_per_byte"]["value"] == pytest.approx(expected["acc_bytes,none"], abs=1e-3)

    opened = open_model(directory, device="cpu")
    ours = score_choices(opened.model, opened.tokenizer, read_choices(read_table(data)).items)
    samples = sorted(found["samples"]["ours"], key=lambda sample: sample["doc_id"])
    assert len(samples) == len(ours.loglikelihoods) == 40
    for sample, sums in zip(samples, ours.loglikelihoods, strict=True):
        assert sums == pytest.approx([float(r[0][0]) for r in sample["resps"]], abs=1e-3)


PAIRS = """
task: pairs_in_the_harness
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
test_split: test
output_type: multiple_choice
doc_to_text: ""
doc_to_choice: "{{{{[sentence_good, sentence_bad]}}}}"
doc_to_target: 0
target_delimiter: ""
metric_list:
  - metric: acc
"""


def test_minimal_pairs_equal_the_harness_in_one_report(
    our_model: Path, real_documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--task` and `--lm-eval` on the same pairs: one report, no network, equal scores."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    lines = [line.strip() for text in real_documents for line in text.splitlines() if len(line.split()) > 4][:300:6]
    pairs = [(line, " ".join(line.split()[::-1])) for line in lines]
    data, task = tmp_path / "pairs.jsonl", tmp_path / "pairs.yaml"
    rows = [json.dumps({"sentence_good": good, "sentence_bad": bad}, ensure_ascii=False) for good, bad in pairs]
    data.write_text("\n".join(rows) + "\n", encoding="utf-8")
    task.write_text(PAIRS.format(file=data), encoding="utf-8")
    config = EvaluateConfig(model=our_model, task=(data,), lm_eval=(str(task),), out=tmp_path / "report")
    found = run(config).facts["tasks"]
    ours, expected = found["pairs"], found["pairs_in_the_harness"]
    assert ours["items"] == expected["items"] == len(pairs)
    assert ours["metrics"]["accuracy"]["value"] / 100 == pytest.approx(expected["metrics"]["acc"]["value"], abs=1e-3)
    low, high = expected["metrics"]["acc"]["interval"]
    assert low < expected["metrics"]["acc"]["value"] < high
    items = [json.loads(line) for line in (tmp_path / "report" / "items.jsonl").read_text().splitlines()]
    scored = [item["loglikelihoods"] for item in items if item["task"] == "pairs"]
    theirs = [[float(each[0]) for each in item["responses"]] for item in items if item["task"] != "pairs"]
    for one, other in zip(scored, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_an_unknown_harness_task_is_an_error(our_model: Path, tmp_path: Path) -> None:
    task = tmp_path / "empty.yaml"
    task.write_text("dataset_path: json\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no key task"):
        run(EvaluateConfig(model=our_model, lm_eval=(str(task),), out=tmp_path / "report"))
