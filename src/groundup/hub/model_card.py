"""The model card of a model directory (Mitchell et al. 2019, arXiv:1810.03993): README.md in Hugging Face's format.

The card is written from the facts of the stage. It is not an output with a checksum, so users can edit it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from groundup.core.artifact import ARTIFACT, Artifact, Work, read
from groundup.core.console import Console, format_count, format_duration
from groundup.core.errors import GroundupError
from groundup.core.files import write_text
from groundup.core.markdown import markdown_table
from groundup.hub.adapted import is_adapter
from groundup.hub.source import license_of

CARD = "README.md"
_LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_HEADING = re.compile(r"^# (\S+)$", re.MULTILINE)
_HUB_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)")
_STAGES = {
    "pretrain": "Pretrained from random weights",
    "finetune.instruct": "Fine-tuned on conversations",
    "finetune.classify": "Fine-tuned on labeled texts",
    "import": "Imported",
    "merge": "Adapter merged into its base model",
}
_RESULTS = ("held_out", "test", "tfidf")  # facts that contain scores
_NAMES = {
    "held_out": "held-out examples",
    "test": "test examples",
    "tfidf": "TF-IDF on the test examples",
    "fine_tuned": "this model",
    "validation": "validation set",
    "base": "base model",
}
_LIMITATIONS = (
    "The outputs of a language model can be wrong, biased or offensive, and can repeat training text. Test the model "
    "on your own data before you use it."
)


def finish_model(work: Work, facts: Mapping[str, Any], files: Sequence[Path], *, base: Path | None = None) -> Artifact:
    """Write the model card, then the artifact of a stage that made a model directory.

    Args:
        work: Work of the stage.
        facts: Results of the stage. `data` may list the sources of the training data.
        files: Output files of the stage, without the model card.
        base: Directory of the base model, or None.

    Returns:
        The artifact of the finished stage.
    """
    directory = (work.target or work.directory).resolve()
    name = "-".join(dict.fromkeys((directory.parent.name, directory.name)))
    write_text(work.directory / CARD, model_card(name, work.directory, work, facts, base))
    return work.finish(facts, list(files))


def show_licenses(sources: Path | Sequence[Any], base: Path, console: Console) -> list[str]:
    """Print and return the licenses of the training data, which also apply to a fine-tuned model.

    Args:
        sources: Sources of the training data, or the path of a private table.
        base: Directory of the base model.
        console: Console for the note.
    """
    found = ["private"] if isinstance(sources, Path) else list(dict.fromkeys(str(each.license) for each in sources))
    licensed = license_of(base) or "unknown"
    console.note(f"License of the data: {'; '.join(found)}. License of the base model: {licensed}.")
    return found


def model_card(
    name: str, directory: Path, stage: Work | Artifact, facts: Mapping[str, Any], base: Path | None = None
) -> str:
    """Return the text of the model card of a model.

    Args:
        name: Name of the model.
        directory: Directory of the model.
        stage: The stage that made the model.
        facts: Results of the stage.
        base: Directory of the base model, or None.
    """
    classifies, adapter = "labels" in facts, is_adapter(directory)
    sections = [
        _front_matter(name, stage.stage, facts, base, classifies=classifies, adapter=adapter),
        f"# {name}\n\n{_description(stage.stage, facts, base)}",
        f"## Use\n\n{_usage(name, classifies=classifies, adapter=adapter)}",
        _table("## Training data", ("source", "license", "documents", "bytes"), _data_rows(facts), "llrr"),
        _table("## Training", ("", ""), list(_training_rows(stage, facts)), "ll"),
        _table("## Evaluation", ("score", "value", "95 % interval"), list(_result_rows(facts)), "lrr"),
        f"## Limitations\n\n{_LIMITATIONS}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def for_repository(card: str, repository: str) -> str:
    """Return a model card whose examples load the model from the Hugging Face Hub.

    Args:
        card: Text of a model card, whose first heading is the local name of the model.
        repository: Name of the repository, ORG/NAME.
    """
    heading = _HEADING.search(card)
    if heading is None:
        return card
    name = heading[1]
    loaded = card.replace(f'"{name}")', f'"{repository}")')
    return loaded.replace("```sh\ngroundup ", f"```sh\ngroundup import hf://{repository} --out {name}\ngroundup ")


def _front_matter(
    name: str, stage: str, facts: Mapping[str, Any], base: Path | None, *, classifies: bool, adapter: bool
) -> str:
    """Return the metadata in YAML. JSON strings are valid YAML."""
    license = facts.get("license") or (license_of(base) if base is not None else "")
    fields: dict[str, Any] = {}
    if license:
        known = _LICENSE_ID.fullmatch(license) is not None
        fields |= {"license": license} if known else {"license": "other", "license_name": license}
    fields["library_name"] = "peft" if adapter else "transformers"
    fields["pipeline_tag"] = "text-classification" if classifies else "text-generation"
    if original := _hub_name(stage, facts, base):
        fields["base_model"] = original
    fields["tags"] = ["groundup"]
    if results := _index_results(facts, fields["pipeline_tag"]):
        fields["model-index"] = [{"name": name, "results": results}]
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in fields.items()) + "\n---"


def _hub_name(stage: str, facts: Mapping[str, Any], base: Path | None) -> str:
    """Return the name of the base model on the Hugging Face Hub, or "" if it does not come from there."""
    source = facts.get("source")
    if stage != "import" and base is not None and (base / ARTIFACT).is_file():
        try:
            source = read(base).facts.get("source")
        except GroundupError:  # A damaged record of the base model does not affect this model.
            return ""
    found = _HUB_NAME.match(str(source.get("given", ""))) if isinstance(source, Mapping) else None
    return found[1] if found else ""


def _description(stage: str, facts: Mapping[str, Any], base: Path | None) -> str:
    kind = "classifier" if "labels" in facts else "language model"
    size = f"with {format_count(facts['parameters'])} parameters" if "parameters" in facts else ""
    made = _STAGES.get(stage, "Made")
    if stage == "pretrain" and base is not None:
        made = "Pretrained further"
    start = f", from `{base.resolve().name}`," if base is not None else ""
    return " ".join(f"A {kind} {size}. {made}{start} with groundup.".split())


def _usage(name: str, *, classifies: bool, adapter: bool) -> str:
    if classifies:
        code = f'from transformers import pipeline\n\nprint(pipeline("text-classification", "{name}")("A text."))'
    else:
        package, loader = ("peft", "AutoPeftModelForCausalLM") if adapter else ("transformers", "AutoModelForCausalLM")
        imports = ["from transformers import AutoTokenizer", f"from {package} import {loader}"]
        if not adapter:
            imports = [f"from transformers import {loader}, AutoTokenizer"]
        lines = [
            *imports,
            "",
            f'tokenizer, model = AutoTokenizer.from_pretrained("{name}"), {loader}.from_pretrained("{name}")',
            'inputs = tokenizer("Once upon a time", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0]))",
        ]
        code = "\n".join(lines)
    command = "classify" if classifies else "generate"
    return f'```python\n{code}\n```\n\n```sh\ngroundup {command} {name} "A text."\n```'


def _data_rows(facts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (each["name"], each["license"] or "not specified", f"{each['documents']:,}", f"{each['bytes']:,}")
        for each in facts.get("data") or ()
    ]


def _training_rows(stage: Work | Artifact, facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if stage.stage == "import":
        return
    counts = {"steps": "optimizer steps", "tokens_seen": "training tokens"}
    yield from ((label, f"{facts[key]:,}") for key, label in counts.items() if key in facts)
    plan = facts.get("plan") or {}
    if "epochs" in (facts if "epochs" in facts else plan):
        yield "epochs", f"{facts.get('epochs', plan.get('epochs')):.2f}"
    if "flops_per_token" in facts and "tokens_seen" in facts:
        yield "compute", f"{facts['flops_per_token'] * facts['tokens_seen']:.2e} FLOPs"
    for rate in facts.get("learning_rates") or ():
        yield f"learning rate, {rate['group']}", f"{rate['learning_rate']:g} ({rate['optimizer']})"
    machine = facts.get("machine") or {}
    if machine:
        yield "hardware", f"{machine['device']}, {machine['compute_dtype']}, {machine['threads']} threads"
    yield "time", format_duration(stage.seconds)
    yield "seed", str(stage.config.get("seed", "not used"))


class _Score(NamedTuple):
    """A score with its interval, if known.

    Attributes:
        about: What is scored, as keys of the facts, such as ("test",) or ("held_out", "fine_tuned").
        metric: Name of the metric.
        value: Value of the metric.
        bounds: Bounds of the 95 % interval, or None.
    """

    about: tuple[str, ...]
    metric: str
    value: float
    bounds: tuple[float, float] | None


def _scores(facts: Mapping[str, Any]) -> Iterator[_Score]:
    """Yield each score that has an interval, and the bits per byte after pretraining."""

    def walk(path: tuple[str, ...], value: Any) -> Iterator[_Score]:
        if not isinstance(value, Mapping):
            return
        if isinstance(bounds := value.get("interval"), Sequence) and None not in bounds:
            metric = next(key for key in value if key != "interval")
            names = path if metric == "value" else (*path, metric)
            yield _Score(names[:-1], names[-1].replace("_", " "), value[metric], (bounds[0], bounds[1]))
            return
        for key, each in value.items():
            yield from walk((*path, key), each)

    for key in _RESULTS:
        yield from walk((key,), facts.get(key))
    measured = (facts.get("prediction") or {}).get("measured") or {}
    if "bits_per_byte" in measured:
        yield _Score(("validation",), "bits per byte", measured["bits_per_byte"], None)


def _result_rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for score in _scores(facts):
        label = ", ".join([*(_NAMES.get(part, part.replace("_", " ")) for part in score.about), score.metric])
        yield label, f"{score.value:.4g}", "" if score.bounds is None else "{:.4g} to {:.4g}".format(*score.bounds)


def _index_results(facts: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    """Return the scores of this model, without those of baselines, as `results` of Hugging Face's `model-index`."""
    found = []
    for score in _scores(facts):
        if {"base", "tfidf"} & set(score.about):
            continue
        dataset = {"name": _NAMES[score.about[0]], "type": "custom"}
        metric = {"name": score.metric, "type": score.metric.replace(" ", "_"), "value": score.value}
        found.append({"task": {"type": task}, "dataset": dataset, "metrics": [metric]})
    return found


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], align: str) -> str:
    table = markdown_table(columns, [[str(cell) for cell in row] for row in rows], align)
    return f"{title}\n\n{table}".rstrip() if table else ""
