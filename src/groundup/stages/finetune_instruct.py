"""`groundup finetune instruct`: a language model and examples of questions with answers, to a model that chats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.artifact import Artifact, begin, read
from groundup.config import setting
from groundup.console import Console
from groundup.examples import ConversationRules, ExampleSources
from groundup.stages._training import base_identity, drop_checkpoints, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from groundup.checkpoint.resolve import OpenedModel
    from groundup.console import Progress
    from groundup.generate import Engine
    from groundup.parallel import Machine
    from groundup.planner import Plan
    from groundup.tokenizer import ChatTemplate, Tokenizer
    from groundup.tokens import ExampleLoader
    from groundup.train import StepReport
    from groundup.types import Example

    Labelled = tuple[list[int], list[bool]]

_WINDOW = 512  # tokens, unless an example needs more
_PROBED = 64  # held-out examples, scored on the way
_TRANSCRIPTS = 3
_ANSWER_TOKENS = 80


class FinetuneInstructConfig(ConversationRules):
    """Examples and a model to tune; columns, split, epochs and learning rates have defaults that are shown."""

    data: ExampleSources = setting(help="examples: a table of prompts and responses, or of messages", positional=True)
    model: Path = setting(help="model to start from: a directory, or a run", flag=True)
    out: Path = setting(help="directory for the tuned model", flag=True)
    test: ExampleSources = setting([], help="examples to test on; default: a part of the data", flag=True)
    test_fraction: float = setting(0.1, help="held out where no test data is given", gt=0, lt=1)
    test_examples: int = setting(1000, help="hold out at most so many", ge=1)
    epochs: float | None = setting(None, help="times to see each example; default: 3", flag=True, gt=0)
    minutes: float | None = setting(None, help="train no longer than this on this machine", flag=True, gt=0)
    learning_rate: float = setting(0.3, help="of all parts of the model, as a share of pretraining's", flag=True, gt=0)
    cut_long: bool = setting(False, help="cut examples that are longer than the context, instead of dropping them")
    seed: int = setting(0, help="of the order of examples", flag=True, ge=0)
    threads: int | None = setting(None, help="CPU threads; default: one a core", gt=0)
    compile: bool = setting(True, help="compile the layers where the run is long enough to gain from it")
    checkpoint_seconds: float = setting(30.0, help="save the state of the run this often", ge=0)
    evaluations: int = setting(4, help="how often to score held-out answers and show one on the way", ge=0)


def run(config: FinetuneInstructConfig, *, console: Console | None = None) -> Artifact:
    """Tune, compare with the base on held-out answers, and leave a model directory with a chat template.

    Raises:
        DataError: no model or examples there, or no token in them to train.
        ConfigError: columns that are not there, or a vocabulary without the tokens of a chat.
    """
    from groundup.examples import table_identity

    console = console or Console()
    keys = config.model_dump(mode="json", exclude={"data", "test", "model", "out", "checkpoint_seconds"})
    inputs = {"model": base_identity(config.model), "data": table_identity(config.data)}
    if config.test:
        inputs["test"] = table_identity(config.test)
    work = begin(config.out, "finetune.instruct", keys, inputs, console=console)
    if work.state == "done":
        drop_checkpoints(config.out)
        return read(config.out)

    from groundup.checkpoint import load_model, save_model
    from groundup.checkpoint.resolve import open_model
    from groundup.evals.responses import compare_with_base
    from groundup.generate import Engine
    from groundup.objectives import NextToken
    from groundup.optim import Optimizer, WarmupStableDecay
    from groundup.parallel import Spread, place
    from groundup.planner import flops_per_token, parameter_count
    from groundup.ranks import Ranks
    from groundup.tokenizer import ChatTemplate

    learned, tested, told = _examples(config, console)
    opened = open_model(config.model, device="cpu")
    model, tokenizer = opened.model, opened.tokenizer
    template = ChatTemplate(tokenizer)
    encoded = [template.encode_labelled(example.messages) for example in learned]
    machine, plan = _plan(config, opened, encoded, seconds_spent=work.seconds)
    loader = _loader(
        config, encoded, plan.model.context_length, plan.micro_batch_size, tokenizer.pad_id, machine.device
    )
    if loader.too_long:
        done = "cut" if config.cut_long else "left out: cut_long = true would keep their beginnings"
        console.warn(f"{loader.too_long:,} examples are longer than {plan.model.context_length:,} tokens: {done}.")
    long = {"longer than the context": loader.too_long} if loader.too_long and not config.cut_long else {}
    console.table("The plan", ["", ""], plan.describe())
    console.sample("one example; what is trained stands in [[ ]]", _marked(template, tokenizer, learned[0]))

    model.requires_grad_(True)
    place(model, machine)
    with Engine(model, tokenizer, stop_ids=template.stop_ids) as engine:
        progress = train(
            work,
            "tuning",
            Spread(model, "single", Ranks()),
            NextToken(),
            loader.batch,
            Optimizer(model, plan.optimizer),
            WarmupStableDecay(plan.total_steps, plan.warmup_steps, plan.decay_steps),
            plan_digest=plan.digest,
            total_tokens=loader.labels_until(plan.total_steps * plan.grad_accum_steps),
            machine=machine,
            ranks=Ranks(),
            console=console,
            grad_accum_steps=plan.grad_accum_steps,
            look=_look(engine, template, tested, console),
            looks=config.evaluations,
            checkpoint_seconds=config.checkpoint_seconds,
        )

    files = save_model(
        config.out,
        model,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        stop_ids=template.stop_ids,
    )
    tokenizer.set_chat_template(template.jinja)
    files += tokenizer.save(config.out)

    # Both from their files and in fp32, so that they differ in nothing but the tuning.
    tuned, base = (load_model(directory, device=machine.device) for directory in (config.out, opened.directory))
    with console.progress("scoring", None, "answers") as bar:
        compared = compare_with_base(
            tuned, base, tokenizer, template, learned, tested, seed=config.seed, advance=bar.advance
        )
    with Engine(tuned, tokenizer, stop_ids=template.stop_ids) as ours, Engine(base, tokenizer) as theirs:
        transcripts = compared.transcripts(ours, theirs, template, _TRANSCRIPTS, _ANSWER_TOKENS)
    for transcript in transcripts:
        said = "\n".join(f"{message['role']}: {message['content']}" for message in transcript["messages"])
        console.sample("held-out question", f"{said}\n(base: {transcript['base']})")
    console.note(compared.sentence)
    facts = {
        "examples": {"train": loader.n_examples, "test": len(tested), "dropped": told["dropped"] | long},
        "changed": told["changed"],
        "columns": told["columns"],
        "parameters": parameter_count(model.config),
        "flops_per_token": flops_per_token(plan.model),
        "epochs": round(plan.epochs, 3),
        "tokens_seen": progress.tokens_seen,
        "held_out": compared.to_json(),
        "transcripts": transcripts,
        "plan": plan.to_json(),
        "machine": machine.to_json(),
    }
    outputs = [*files, config.out / "plan.json"]
    made = work.finish(facts, outputs)
    drop_checkpoints(config.out)
    return made


def _examples(config: FinetuneInstructConfig, console: Console) -> tuple[list[Example], list[Example], dict[str, Any]]:
    """What to learn, what to test on, and how the tables were read."""
    from groundup.examples import read_conversations, split_by_hash, without_prompts_of

    rules = ConversationRules(**config.model_dump(include=set(ConversationRules.model_fields)))
    found = read_conversations(config.data, rules, console=console)
    if config.test:
        tested = read_conversations(config.test, rules, console=console).examples
        learned = without_prompts_of(tested, found)
    else:
        learned, tested = split_by_hash(found.examples, fraction=config.test_fraction, most=config.test_examples)
    console.note(f"{found.sentence}.")
    return learned, tested, {"columns": found.columns, "dropped": dict(found.dropped), "changed": dict(found.changed)}


def _plan(
    config: FinetuneInstructConfig, opened: OpenedModel, encoded: Sequence[Labelled], *, seconds_spent: float
) -> tuple[Machine, Plan]:
    """The plan that the run began with, or a new one; where minutes are given, real steps are measured."""
    import math
    import time
    from dataclasses import replace

    from groundup.checkpoint import load_model
    from groundup.files import read_json, write_json
    from groundup.objectives import NextToken
    from groundup.optim import Optimizer
    from groundup.parallel import Machine, measure_machine, place
    from groundup.planner import Plan
    from groundup.planner.tuning import USUAL_EPOCHS, plan_tuning, step_rows, tuning_rates, within, worth_compiling
    from groundup.train import steps_per_second

    plan_file = config.out / "plan.json"
    if plan_file.is_file():
        saved = read_json(plan_file)
        return Machine.from_json(saved["machine"]), Plan.from_json(saved["plan"])
    started = time.monotonic()
    longest = 64 * math.ceil(max(len(ids) for ids, _ in encoded) / 64)
    context = opened.model.config.context_length
    shape = replace(opened.model.config, context_length=min(context, max(_WINDOW, longest)))

    def loader(rows: int, device: str = "cpu") -> ExampleLoader:
        return _loader(config, encoded, shape.context_length, rows, opened.tokenizer.pad_id, device)

    rows_per_epoch = loader(1).n_rows
    epochs = config.epochs or USUAL_EPOCHS
    tokens = epochs * rows_per_epoch * shape.context_length
    machine = measure_machine(threads=config.threads, compile=False)
    if config.compile and worth_compiling(shape, tokens, machine.product_flops):
        machine = measure_machine(threads=config.threads, compile=True)
    rates = tuning_rates(shape.dim, config.learning_rate)
    step = step_rows(rows_per_epoch, epochs, shape.context_length)
    rate = None
    if config.minutes is not None:
        probe = load_model(opened.directory).requires_grad_(True)
        place(probe, machine)
        batches = loader(step[0], machine.device).batch
        rate = step[0] * shape.context_length * steps_per_second(probe, NextToken(), batches, Optimizer(probe, rates))
        left = 60 * config.minutes - seconds_spent - (time.monotonic() - started)
        epochs = within(left, rate, rows_per_epoch * shape.context_length, epochs)
        step = step_rows(rows_per_epoch, epochs, shape.context_length)
    plan = plan_tuning(shape, rates, rows_per_epoch=rows_per_epoch, epochs=epochs, step=step, tokens_per_second=rate)
    write_json(plan_file, {"machine": machine.to_json(), "plan": plan.to_json()})
    return machine, plan


def _loader(
    config: FinetuneInstructConfig, encoded: Sequence[Labelled], window: int, rows: int, pad_id: int, device: str
) -> ExampleLoader:
    from groundup.tokens import ExampleLoader

    return ExampleLoader(
        encoded,
        context_length=window,
        batch_size=rows,
        pad_id=pad_id,
        seed=config.seed,
        cut=config.cut_long,
        device=device,
    )


def _marked(template: ChatTemplate, tokenizer: Tokenizer, example: Example) -> str:
    """A conversation with its special tokens, and [[ ]] around each run of trained ones."""
    from itertools import groupby

    pieces = []
    labelled = zip(*template.encode_labelled(example.messages), strict=True)
    for trained, run in groupby(labelled, key=lambda pair: pair[1]):
        text = tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        pieces.append(f"[[{text}]]" if trained else text)
    return "".join(pieces)


def _look(
    engine: Engine, template: ChatTemplate, tested: Sequence[Example], console: Console
) -> Callable[[StepReport, Progress], None]:
    """What is shown on the way: the loss on a few held-out answers, and what the model answers now."""
    from groundup.evals.responses import answer, chat_renderer, fits, response_tokens, score_responses, spread
    from groundup.parallel import eagerly

    render = chat_renderer(template)
    context = engine.model.config.context_length
    probe = [example for example in spread(tested, _PROBED) if fits(render, example, context)]
    tokens = int(response_tokens(engine.tokenizer, probe).sum())

    def look(report: StepReport, bar: Progress) -> None:
        if not probe:
            return
        with eagerly():
            nats = float(score_responses(engine.model, engine.tokenizer, probe, render).nll_E.sum())
            question = probe[report.step % len(probe)].messages[:-1]
            said = answer(engine, question, template, max_tokens=_ANSWER_TOKENS)
        bar.show(held_out=f"{nats / tokens:.3f}")
        title = f"step {report.step:,}, {nats / tokens:.3f} nats a token of held-out answers: it is asked and answers"
        console.sample(title, f"{question[-1].content}\n-> {said}")

    return look
