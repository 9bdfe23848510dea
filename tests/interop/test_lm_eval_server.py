"""lm-evaluation-harness scores a model over HTTP as it scores the same directory with its `hf` model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.interop
lm_eval = pytest.importorskip("lm_eval", reason="pip install '.[interop]'")

TASKS = {
    "choose": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: 0
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "roll": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
""",
    "write": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{question}}"
generation_kwargs: {until: ["\\n\\n", "e"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}
MAX_LENGTH = 512


@pytest.fixture(scope="module")
def tasks(real_documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tasks and their data. The rolling texts are longer than the context."""
    folder = tmp_path_factory.mktemp("tasks")
    lines = [line.strip() for text in real_documents for line in text.splitlines() if 30 < len(line.strip()) < 90]
    items = [
        {
            "question": lines[60 * number],
            "choices": [lines[60 * number + 1], f"größer {lines[60 * number + 30]}", "Да"],
            "text": "".join(real_documents[number : number + 4])[:3000],
        }
        for number in range(8)
    ]
    data = folder / "items.jsonl"
    data.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    for name, task in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(head + task, encoding="utf-8")
    return folder


def evaluate(model: str, args: dict[str, Any], tasks: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(
        model=model,
        model_args=args,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        device="cpu",
        batch_size=4,
        bootstrap_iters=0,
        log_samples=True,
    )


def outputs(found: Any, task: str) -> list[Any]:
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [output for sample in samples for responses in sample["resps"] for output in responses]


def test_scores_over_http_equal_those_of_the_directory(
    serve: Callable[..., str], our_model: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    url = serve(our_model, "ours")
    here = {"base_url": f"{url}/v1/completions", "model": "ours", "max_length": MAX_LENGTH, "num_concurrent": 3}
    local = {"tokenizer_backend": "huggingface", "tokenizer": str(our_model), "add_bos_token": True}
    served = evaluate("local-completions", here | local, tasks)
    # The API model reserves a token of the context for the generated one, and the first one of rolling windows.
    loaded = {"pretrained": str(our_model), "dtype": "float32", "max_length": MAX_LENGTH - 2}
    compare(served, evaluate("hf", loaded, tasks))
    # By default, the API model uses the tokenizer of the server, and adds no BOS.
    compare(evaluate("local-completions", here, tasks), evaluate("hf", loaded | {"add_bos_token": False}, tasks))


def compare(served: Any, expected: Any) -> None:
    for task in TASKS:
        for metric, value in expected["results"][task].items():
            if isinstance(value, float):
                assert served["results"][task][metric] == pytest.approx(value, abs=1e-3)
        for ours, theirs in zip(outputs(served, task), outputs(expected, task), strict=True):
            if task == "choose":
                assert float(ours[0]) == pytest.approx(float(theirs[0]), abs=1e-3)
                assert ours[1] == theirs[1], "whether the choice is what greedy decoding generates"
            elif task == "roll":
                assert float(ours) == pytest.approx(float(theirs), abs=1e-2), "a sum of 1,000 log-probabilities"
            else:
                assert ours == theirs
