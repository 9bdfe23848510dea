"""Old import paths of public modules. They work for one more release and raise a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_CORE = (
    "artifact",
    "checksums",
    "config",
    "console",
    "errors",
    "facts",
    "files",
    "locks",
    "pipeline",
    "redact",
    "types",
)

# Maps each old package name to the packages that now contain its modules and exports, without "groundup.".
MOVED: dict[str, tuple[str, ...]] = {name: (f"core.{name}",) for name in _CORE} | {
    "apps.asking": ("apps.prompter",),
    "apps.catalogue": ("apps.catalog",),
    "apps.classifying": ("apps.classifier_runner",),
    "apps.parts": ("apps.chunks",),
    "apps.reading": ("apps.files",),
    "apps.running": ("apps.runner",),
    "apps.served": ("apps.serving",),
    "apps.shown": ("apps.json_text",),
    "apps.testing": ("apps.test_set",),
    "apps.work": ("apps.steps",),
    "chat.commands": ("chat.terminal",),
    "chat.formats": ("inference.prompting",),
    "checkpoint": ("hub",),
    "checkpoint.grown": ("hub.chat_tokens",),
    "checkpoint.rope_json": ("hub.config_json",),
    "checkpoint.stored": ("hub.stored_weights",),
    "checkpoint.state": ("hub.training_state",),
    "corpus.fetching.asking": ("corpus.fetching.pages",),
    "corpus.formats.pdf_layout": ("corpus.formats.pdf",),
    "corpus.formats.wikitext": ("corpus.formats.wiki",),
    "corpus.given": ("corpus.user_files",),
    "corpus.dedup.portions": ("corpus.dedup.partitions",),
    "corpus.html.boilerplate": ("corpus.html.blocks",),
    "corpus.ledger": ("corpus.drop_log",),
    "corpus.privacy.national_checks": ("corpus.privacy.national_ids",),
    "corpus.sources.walk": ("corpus.sources.folder",),
    "evals": ("evaluation",),
    "evals.asking": ("evaluation.prompt_search",),
    "evals.before_after": ("evaluation.model_comparison",),
    "evals.before_after_labels": ("evaluation.label_comparison",),
    "evals.beside_base": ("evaluation.base_comparison",),
    "evals.deciding": ("evaluation.selection",),
    "evals.inside": ("evaluation.internals",),
    "evals.judge": ("evaluation.text_scorer",),
    "evals.labelling": ("evaluation.classifier_evaluation",),
    "evals.metrics.measure": ("evaluation.measure",),
    "evals.rendering": ("inference.prompting",),
    "evals.texts": ("data.texts",),
    "evals.uplift": ("evaluation.comparison",),
    "data.labelled": ("data.labeled",),
    "data.learned": ("data.training_hashes",),
    "data.soundness": ("data.checks",),
    "examples": ("data",),
    "examples.label_columns": ("data.labeled",),
    "exchange": ("evaluation.verification", "hub"),
    "generate": ("inference",),
    "generate.stops": ("inference.sequence",),
    "gguf": ("hub.gguf",),
    "gguf.kquants": ("hub.gguf.quantize",),
    "gguf.rope": ("hub.gguf.hyperparameters",),
    "objectives": ("train.objectives",),
    "objectives.classification": (
        "train.objectives.classification",
        "inference.classification",
        "data.label_batches",
        "train.planner.fine_tuning",
    ),
    "objectives.framing": ("train.initial_head",),
    "objectives.novelty": ("inference.novelty",),
    "objectives.probe": ("train.initial_head",),
    "parallel": ("distributed", "kernels"),
    "model.attend": ("model.operations",),
    "model.lean": ("model.operations",),
    "model.rope": ("model.attention",),
    "optim.schedule": ("optim.optimizer",),
    "parallel.sharded": ("distributed.collectives",),
    "parallel.spread": ("distributed.parallel_model",),
    "parallel.spread_optimizer": ("distributed.sharded_optimizer",),
    "planner": ("train.planner",),
    "planner.flops": ("model.flops",),
    "ranks": ("distributed.ranks",),
    "report.sections.losses": ("report.sections.training",),
    "report.sections.uplift": ("report.sections.evaluation",),
    "stages": ("commands",),
    "studio.live": ("studio.model_cache",),
    "studio.pages": ("studio.routes",),
    "studio.window": ("studio.routes",),
    "tokens": ("data",),
    "train.best": ("train.keep_best",),
    "train.pace": ("train.time_limit",),
    "train.probe": ("train.memory_probe",),
    "train.rehearsal": ("train.step_cost",),
    "train.state": ("train.fit",),
}

# Maps the old module and name of each renamed function or class to the new name.
RENAMED = {
    "apps.asking.Asking": "Prompter",
    "apps.asking.Speaker": "TextModel",
    "apps.catalogue.Catalogue": "Catalog",
    "apps.catalogue.CatalogueEntry": "CatalogEntry",
    "apps.catalogue.open_catalogue": "open_catalog",
    "apps.testing.Trial": "AppOutputs",
    "apps.testing.test": "run_test_set",
    "checkpoint.adapted.belongs_to": "is_adapter_of",
    "checkpoint.adapted.find_base": "find_adapter_base",
    "checkpoint.adapted.whole_model": "full_model_directory",
    "checkpoint.adapters.read_record": "read_adapter_json",
    "checkpoint.directory.load_classifier": "load_full_classifier",
    "checkpoint.directory.load_model": "load_full_model",
    "checkpoint.directory.read_config": "read_full_config",
    "checkpoint.grown.ready_to_chat": "add_chat_tokens",
    "checkpoint.resolve.open_beside": "open_adapter",
    "console.Progress": "ProgressBar",
    "corpus.dedup.portions.Portion": "Partition",
    "corpus.dedup.portions.SignTask": "SignatureTask",
    "corpus.dedup.portions.Signed": "Signatures",
    "corpus.given.given_items": "iter_items",
    "corpus.given.given_tables": "find_tables",
    "corpus.given.given_texts": "iter_texts",
    "corpus.ledger.Fate": "DropRecord",
    "corpus.ledger.LEDGER": "DROP_LOG",
    "corpus.ledger.LedgerWriter": "DropLogWriter",
    "corpus.ledger.fate_of": "drop_record",
    "corpus.ledger.read_ledger": "read_drop_log",
    "data.labelled.Labelled": "Labeled",
    "data.labelled.read_labelled": "read_labeled",
    "data.learned.learned_by": "training_hashes",
    "data.learned.save_learned": "save_training_hashes",
    "evals.deciding.score_of_answers": "answer_score",
    "evals.inside.Reading": "TextTrace",
    "evals.inside.neighbours": "nearest_tokens",
    "evals.judge.ModelJudge": "TextScorer",
    "examples.label_parts.split": "split_labeled",
    "examples.tables.folded": "casefolded",
    "examples.xray.table": "role_table",
    "exchange.agreement.compare": "compare_engines",
    "exchange.classifier.compare_labels": "compare_classifiers",
    "exchange.source.licence_of": "license_of",
    "exchange.worker.main": "serve_engine",
    "generate.worker.Steps": "StepEngine",
    "gguf.hyperparameters.read_config": "config_from_metadata",
    "gguf.pretokenizers.as_json": "pre_tokenizer_json",
    "gguf.weights.weight_table": "gguf_weight_table",
    "objectives.classification.SeveralLabels": "MultiLabelClassification",
    "objectives.classification.last_states": "last_hidden_states",
    "objectives.classification.likely": "above_threshold",
    "objectives.classification.usual_epochs": "classifier_epochs",
    "objectives.framing.BEFORE": "PROMPT_BEFORE",
    "objectives.framing.BEHIND": "PROMPT_AFTER",
    "train.pace.Pace": "TimeLimit",
    "train.probe.fitting_rows": "find_max_rows",
    "train.rehearsal.Rehearsal": "StepCost",
    "train.rehearsal.rehearse": "measure_steps",
}


class _OldPaths(MetaPathFinder, Loader):
    """Import hook that imports `groundup.OLD[.MODULE]` as a module whose names are looked up in the new modules."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "groundup" or not _new_names(name):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        found = [each for new_name in _new_names(old.partition(".")[2]) if (each := _imported(f"groundup.{new_name}"))]
        if not found:
            raise ModuleNotFoundError(f"No module named {old!r}", name=old)
        new = " or ".join(each.__name__ for each in found)
        warnings.warn(f"{old} is now {new}; the next release removes the old path", DeprecationWarning, stacklevel=2)
        module.__dict__["__getattr__"] = _lookup(old, found)


def _new_names(name: str) -> list[str]:
    """Return the names of the modules that may replace an old module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if places := MOVED.get(".".join(parts[:length])):
            return [".".join([place, *parts[length:]]) for place in places]
    return []


def _imported(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            return None
        raise


def _lookup(old: str, modules: Sequence[ModuleType]) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        new = RENAMED.get(f"{old.partition('.')[2]}.{name}", name)
        for module in modules:
            if hasattr(module, new):
                return getattr(module, new)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return find


def keep_old_paths() -> None:
    """Install the import hook for old paths. If it is already installed, do nothing."""
    if not any(isinstance(finder, _OldPaths) for finder in sys.meta_path):
        sys.meta_path.append(_OldPaths())
