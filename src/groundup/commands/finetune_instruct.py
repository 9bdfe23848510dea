"""`groundup finetune instruct`: a language model and examples of questions with answers, to a model that chats."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.commands._closing import inside
from groundup.commands._instruct_plan import foretold_of, loader_of, make_plan
from groundup.commands._lora import (
    LoraConfig,
    Method,
    make_trainable,
    require_a_whole_model,
    require_full_for_muon,
    save_tuned,
    settle_method,
)
from groundup.commands._optimizer import OptimizerSettings, show_rates
from groundup.commands._plans import SavedPlan
from groundup.commands._replay import replay_identity, replayed
from groundup.commands._training import (
    NO_PART_OF_THE_RESULT,
    ParallelConfig,
    TrackerName,
    base_identity,
    begun,
    drop_checkpoints,
    parallelize,
    train,
)
from groundup.core.artifact import Artifact, Work, read
from groundup.core.config import setting
from groundup.core.console import Console
from groundup.core.types import DeciderName
from groundup.data import ConversationRules, ExampleSources

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from groundup.core.console import Progress
    from groundup.core.types import Example
    from groundup.data import ExampleLoader
    from groundup.distributed.ranks import Ranks
    from groundup.inference import Engine
    from groundup.tokenizer import ChatTemplate
    from groundup.train import SampleLog, StepReport

_PROBED = 64  # held-out examples, scored on the way
_SCORED = 300  # at the end, by both models: a thousand would take as long as many a tuning
_TRANSCRIPTS = 3
_ANSWER_TOKENS = 80


class FinetuneInstructConfig(OptimizerSettings, ConversationRules):
    """Examples and a model to tune; columns, split, epochs and learning rates have defaults that are shown."""

    data: ExampleSources = setting(help="examples: a table of prompts and responses, or of messages", positional=True)
    model: Path = setting(help="model to start from: a directory, or a run", flag=True)
    out: Path = setting(help="directory for the tuned model", flag=True)
    test: ExampleSources = setting([], help="test examples; default: held out", flag=True)
    test_fraction: float = setting(0.1, help="held out where no test data is given", gt=0, lt=1)
    test_examples: int = setting(1000, help="hold out at most so many", ge=1)
    epochs: float | None = setting(None, help="times to see each example; default: 3", flag=True, gt=0)
    minutes: float | None = setting(None, help="train no longer than this on this machine", flag=True, gt=0)
    replay: Path | None = setting(None, help="general text (a corpus, files) or conversations to mix in")
    replay_share: float = setting(
        0.0, help="share of the trained tokens that is mixed in, against forgetting", ge=0, lt=1
    )
    method: Method | None = setting(None, help="all weights, or adapters; default: by size", flag=True)
    lora: LoraConfig = setting(LoraConfig(), help="the adapters of method = lora or merged")
    warmup_ratio: float = setting(0.05, help="share of the steps in which the rate rises from 0", ge=0, le=1)
    decay_ratio: float = setting(0.8, help="share of the steps in which it falls to 0; 0: constant rate", ge=0, le=1)
    cut_long: bool = setting(False, help="cut examples that are longer than the context, instead of dropping them")
    seed: int = setting(0, help="of the order of examples", flag=True, ge=0)
    threads: int | None = setting(None, help="CPU threads; default: one a core", gt=0)
    dtype: Literal["float32", "bfloat16"] | None = setting(None, help="dtype of matrix products; default: the faster")
    compile: bool = setting(True, help="compile the layers where the run is long enough to gain from it")
    parallel: ParallelConfig = setting(ParallelConfig(), help="how the ranks that torchrun starts share the work")
    checkpoint_seconds: float = setting(
        30.0, help="save the run this often, or as often as takes 5 % of its time; 0: after every step", ge=0
    )
    skip_spikes: bool = setting(True, help="skip steps whose loss is far above those before")
    log_to: tuple[TrackerName, ...] = setting((), help="draw curves with tensorboard, wandb or trackio, too")
    keep_best: DeciderName | None = setting(
        None, help="keep the state that is best by this on answers set apart; default: the last one"
    )
    patience: int | None = setting(None, help="end after so many of 20 scores that are no better", ge=1)
    xray: bool = setting(False, help="show what would be trained, and stop", flag=True)
    evaluations: int = setting(4, help="how often to score held-out answers and show one on the way", ge=0)


def run(config: FinetuneInstructConfig, *, console: Console | None = None) -> Artifact:
    """Tune, compare with the base on held-out answers, and leave a model directory with a chat template.

    Raises:
        DataError: no model or examples there, or no token in them to train.
        ConfigError: columns that are not there, or a vocabulary without the tokens of a chat.
    """
    from groundup.data import table_identity

    console = console or Console()
    require_full_for_muon(config.optimizer, config.method, config.model)
    keys = config.model_dump(mode="json", exclude={"data", "test", "model", "replay", "xray", *NO_PART_OF_THE_RESULT})
    if config.xray:
        return _xray(config, keys, console)
    inputs = {"model": base_identity(config.model), "data": table_identity(config.data)}
    if config.replay is not None and config.replay_share:
        inputs["replay"] = replay_identity(config.replay)
    if config.test:
        inputs["test"] = table_identity(config.test)
    with begun(config.out, "finetune.instruct", keys, inputs, console) as (work, ranks, console):
        if work.state != "done":
            _tune(inside(config, work), work, ranks, console)
        if ranks.first:
            drop_checkpoints(config.out)
    return read(config.out)


def _xray(config: FinetuneInstructConfig, keys: dict[str, Any], console: Console) -> Artifact:
    """Show what would be trained; nothing else is left, and nothing is trained."""
    from groundup.commands._xray import Shown
    from groundup.hub import read_config
    from groundup.hub.resolve import load_tokenizer, resolve_model
    from groundup.tokenizer import locked_template, with_chat_tokens

    directory = resolve_model(config.model)
    tokenizer = with_chat_tokens(load_tokenizer(directory))
    learned, _, told = _examples(config, console)
    template = locked_template(directory, tokenizer)
    shown = Shown(template, tokenizer, learned, read_config(directory).context_length, config.cut_long)
    shown.require_sound(console)
    shown.tell(console, most=3)
    return shown.leave(config.out, "finetune.instruct", keys, told["sentence"], console)


def _tune(config: FinetuneInstructConfig, work: Work, ranks: Ranks, console: Console) -> None:
    """Plan, tune, compare, and leave the model directory with its artifact."""
    from groundup.commands._xray import Shown
    from groundup.data import question_of, split_by_hash
    from groundup.data.encoded import trained_tokens
    from groundup.data.learned import learned_by, save_learned
    from groundup.data.tables import spread as spread_over
    from groundup.evaluation.beside_base import compare_with_base
    from groundup.evaluation.deciding import score_of_answers
    from groundup.hub import load_model
    from groundup.hub.adapted import with_adapter
    from groundup.hub.grown import ready_to_chat
    from groundup.hub.resolve import open_model
    from groundup.inference import Engine
    from groundup.kernels import keep_for_reading
    from groundup.model.flops import parameter_count
    from groundup.optim import WarmupStableDecay
    from groundup.tokenizer import locked_template, save_chat
    from groundup.train import SampleLog
    from groundup.train.objectives import NextToken
    from groundup.train.planner import share
    from groundup.train.planner.tuning import USUAL_EPOCHS

    learned, tested, told = _examples(config, console)
    questions = [question_of(example) for example in learned]
    deciding: list[Example] = []
    if config.keep_best or config.patience:
        learned, deciding = split_by_hash(learned, fraction=config.test_fraction, most=config.test_examples)
    opened = ready_to_chat(given := open_model(config.model, device="cpu"))
    model, tokenizer, origin = opened.model, opened.tokenizer, opened.directory
    new_rows_from = None
    if opened is not given:
        require_a_whole_model(config.method, origin)
        new_rows_from = given.tokenizer.vocab_size
        console.note(f"{origin} has no tokens that stand around a turn: it gets them, with rows of weights.")
    method = settle_method(config.method, model.config, config.lora, console)
    del given, opened
    template = locked_template(origin, tokenizer)
    shown = Shown(template, tokenizer, learned, model.config.context_length, config.cut_long)
    encoded = shown.require_sound(console)
    context = model.config.context_length
    mixed_in = replayed(config.replay, config.replay_share, encoded, template, tokenizer, context)
    if mixed_in:
        part = f"{config.replay_share:.0%} of the trained tokens"
        console.note(f"Replayed: {len(mixed_in):,} pieces of {config.replay}, {part}.")
    encoded = [*encoded, *mixed_in]
    saved = SavedPlan(config.out / "plan.json", ranks)
    make_trainable(model, method, config.lora, config.seed, new_rows_from=new_rows_from)
    planning = partial(make_plan, config, model, tokenizer.pad_id, encoded, ranks, seconds_spent=work.seconds)
    machine, plan = saved.read_or(planning)
    spread = parallelize(model, machine, config.parallel, ranks)

    def loading(rows: int) -> ExampleLoader:
        return loader_of(config, encoded, plan.model.context_length, rows, tokenizer.pad_id, machine, ranks)

    plan = saved.settle(machine, plan, spread, NextToken(), lambda rows: loading(rows).batch(0))
    micro, accum = share(plan.rows, plan.micro_batch_size, ranks.size)
    loader = loading(micro)
    if loader.too_long:
        done = "cut" if config.cut_long else "left out: cut_long = true would keep their beginnings"
        console.warn(f"{loader.too_long:,} examples are longer than {plan.model.context_length:,} tokens: {done}.")
    long = {"longer than the context": loader.too_long} if loader.too_long and not config.cut_long else {}
    total = loader.labels_until(plan.total_steps * accum)
    console.table("The plan", ["", ""], plan.describe(total))
    rates = show_rates(config, model, plan.optimizer, console, adapted=method != "full")
    shown.tell(console)
    if saved.new:
        console.note(foretold_of(plan, micro, accum, spread, loader.batch(0), machine, ranks))

    by = config.keep_best or "loss"
    with Engine(model, tokenizer, stop_ids=template.stop_ids) as engine:
        progress = train(
            work,
            "tuning",
            spread,
            NextToken(),
            loader.batch,
            spread.optimizer(plan.optimizer),
            WarmupStableDecay(plan.total_steps, plan.warmup_steps, plan.decay_steps),
            plan_digest=plan.digest,
            total_tokens=total,
            unit="trained tokens",
            machine=machine,
            ranks=ranks,
            console=console,
            grad_accum_steps=accum,
            flops_per_step=float(plan.global_batch_tokens * plan.flops_per_token),
            look=_look(engine, template, tested, console, SampleLog(config.out, ranks)),
            looks=config.evaluations,
            checkpoint_seconds=config.checkpoint_seconds,
            skip_spikes=config.skip_spikes,
            end=plan.seconds,
            most_steps=plan.most_steps(config.epochs or USUAL_EPOCHS),
            log_to=config.log_to,
            score=score_of_answers(by, engine.model, tokenizer, template, deciding, learned) if deciding else None,
            scored_by=by,
            patience=config.patience,
        )

    model = spread.gathered()
    if not ranks.first:
        return
    files = save_tuned(method, config.out, model, origin, tokenizer, template.stop_ids)
    files.append(save_learned(config.out, questions, learned_by(origin)))
    files += [*save_chat(config.out, template, tokenizer), shown.page(config.out / "xray.html", told["sentence"])]
    del model, spread, engine, planning  # what was trained makes room for what is compared

    # Both from their files and in one dtype, so that they differ in nothing but the tuning.
    base = load_model(origin, device=machine.device)
    adapted = method == "lora"
    tuned = with_adapter(base, config.out) if adapted else load_model(config.out, device=machine.device)
    for each in (base, tuned):
        keep_for_reading(each, machine.compute_dtype)
    scored = spread_over(tested, _SCORED)
    if len(scored) < len(tested):
        console.note(f"Scored: {len(scored):,} of {len(tested):,} held-out conversations, from everywhere among them.")
    with console.progress("scoring", 2 * len(scored), "answers") as bar:
        compared = compare_with_base(
            tuned, base, tokenizer, template, learned, scored, seed=config.seed, advance=bar.advance
        )
    with Engine(tuned, tokenizer, stop_ids=template.stop_ids) as ours, Engine(base, tokenizer) as theirs:
        transcripts = compared.transcripts(ours, theirs, template, _TRANSCRIPTS, _ANSWER_TOKENS)
    for transcript in transcripts:
        said = "\n".join(f"{message['role']}: {message['content']}" for message in transcript["messages"])
        console.sample("held-out question", f"{said}\n(base: {transcript['base']})")
    console.note(compared.sentence)
    facts = {
        "examples": {
            "train": loader.n_examples - len(mixed_in),
            "test": len(tested),
            "dropped": told["dropped"] | long,
        },
        "replayed": {"examples": len(mixed_in), "tokens": trained_tokens(mixed_in)},
        "changed": told["changed"],
        "columns": told["columns"],
        **({"base": str(origin)} if adapted else {}),
        "parameters": parameter_count(tuned.config),
        "flops_per_token": plan.flops_per_token,
        "epochs": round(plan.epochs * progress.step / plan.total_steps, 3),
        "tokens_seen": progress.tokens_seen,
        "learning_rates": rates,
        "held_out": compared.to_json(),
        "transcripts": transcripts,
        "plan": plan.to_json(),
        "machine": machine.to_json(),
    }
    work.finish(facts, [*files, saved.path])


def _examples(config: FinetuneInstructConfig, console: Console) -> tuple[list[Example], list[Example], dict[str, Any]]:
    """What to learn, what to test on, and how the tables were read."""
    from groundup.data import read_conversations, split_by_hash, without_prompts_of

    rules = ConversationRules(**config.model_dump(include=set(ConversationRules.model_fields)))
    found = read_conversations(config.data, rules, console=console)
    if config.test:
        tested = read_conversations(config.test, rules, console=console).examples
        learned = without_prompts_of(tested, found)
    else:
        learned, tested = split_by_hash(found.examples, fraction=config.test_fraction, most=config.test_examples)
    console.note(f"{found.sentence}.")
    kept = {"dropped": dict(found.dropped), "changed": dict(found.changed)}
    return learned, tested, {"columns": found.columns, "sentence": f"{found.sentence}.", **kept}


def _look(
    engine: Engine, template: ChatTemplate, tested: Sequence[Example], console: Console, samples: SampleLog
) -> Callable[[StepReport, Progress], None]:
    """What is shown on the way: the loss on a few held-out answers, and what the model answers now."""
    from groundup.data.tables import spread
    from groundup.evaluation.beside_base import answer
    from groundup.evaluation.rendering import chat_renderer, fits
    from groundup.evaluation.responses import response_tokens, score_responses
    from groundup.kernels import eagerly

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
        written = f"{question[-1].content}\n-> {said}"
        console.sample(title, written)
        samples.add(report.step, written, held_out=nats / tokens)

    return look
