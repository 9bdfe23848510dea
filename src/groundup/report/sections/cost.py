"""The cost and provenance section: time per stage, machine, digests, and commands for the next steps."""

from __future__ import annotations

from groundup.core.console import format_duration
from groundup.core.facts import Facts
from groundup.core.files import shell_quoted
from groundup.core.plural import pluralize
from groundup.report.charts import Bar, draw_bar_chart, figure
from groundup.report.formatting import duration, format_time, percent
from groundup.report.html import Child, Html, details, table, tag
from groundup.report.record import CLASSIFY, COLLECT, INSTRUCT, PRETRAIN, RunRecord, StageOutput

_DIGEST_CHARS = 12  # The report shows this many characters of a digest.


def cost_section(run: RunRecord) -> list[Child]:
    """Return the content of the cost and provenance section."""
    total = sum(output.artifact.seconds for output in run.outputs) or 1.0
    rows = [
        Bar(
            f"{output.stage.replace('.', ' ')} → {output.directory.name}/",
            f"{format_duration(output.artifact.seconds)} · {percent(output.artifact.seconds / total, 0)}",
            output.artifact.seconds,
        )
        for output in run.outputs
    ]
    title = "Time per stage"
    description = f"Bar chart of the time per stage: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    cells = [[output.stage, f"{output.directory.name}/", f"{output.artifact.seconds:,.1f}"] for output in run.outputs]
    data = table(title, ("stage", "output", "seconds"), cells, num_numeric=1)
    note = f"{duration(total)} in total."
    drawn = figure(title, draw_bar_chart("time", title, description, rows), note=note, data=data)
    return [drawn, _machine(run), *_provenance(run), *_next_steps(run)]


def _machine(run: RunRecord) -> Html:
    latest = run.outputs[-1].artifact
    machine, versions = Facts(latest.machine), Facts(latest.versions)
    base = run.stage(PRETRAIN)
    rows = [
        ("system", f"{machine.words('system')} {machine.words('machine')}".strip()),
        ("CPU cores", machine.words("cpus")),
        ("training device", base.facts.words("machine", "device") if base else ""),
        *((name, version.words()) for name, version in versions.items()),
    ]
    changed = [
        output.directory.name
        for output in run.outputs
        if (output.artifact.machine, output.artifact.versions) != (latest.machine, latest.versions)
    ]
    note = None
    if changed:
        note = tag(
            "p", f"These outputs are from another machine or other versions: {', '.join(changed)}.", class_="note"
        )
    return details(
        "Machine and versions", table("Machine and versions", ("", ""), [r for r in rows if r[1]], class_="facts"), note
    )


def _provenance(run: RunRecord) -> list[Child]:
    explanation = (
        "Each stage records the digests of its inputs and outputs. A ✓ marks an input that is still in this directory "
        "and that has not changed."
    )
    rows = [
        [
            f"{output.directory.name}/",
            tag("code", output.artifact.digest[:_DIGEST_CHARS]),
            _inputs(run, output),
            format_time(output.artifact.finished_at),
        ]
        for output in run.outputs
    ]
    return [
        tag("h3", "Provenance"),
        tag("p", explanation),
        table("Provenance", ("output", "digest", "inputs", "finished"), rows, num_numeric=1),
    ]


def _inputs(run: RunRecord, output: StageOutput) -> Child:
    if output.stage == COLLECT:
        return pluralize(len(output.artifact.inputs), "source")
    parts: list[Child] = []
    for name, digest in output.artifact.inputs.items():
        source = run.output_with_digest(digest)
        short = tag("code", str(digest)[:_DIGEST_CHARS])
        location = f"✓ {source.directory.name}/" if source else f"{name}, external or replaced"
        parts += [tag("br") if parts else None, short, " ", location]
    return parts or "none"


def _next_steps(run: RunRecord) -> list[Child]:
    """Return the commands that use or evaluate the model, and the command that repeats the run."""
    path = shell_quoted(run.display_path)
    commands: list[tuple[str, str]] = []
    if (base := run.stage(PRETRAIN)) is not None:  # The path of the run alone would refer to its chat model.
        model = shell_quoted(f"{run.display_path}/{base.directory.name}")
        commands.append((f'groundup generate {model} "The history of"', "generate text with the base model"))
    if run.stage(INSTRUCT):
        commands.append((f"groundup chat {path}", "chat with the model"))
    if run.stage(CLASSIFY):
        commands.append((f'groundup classify {path} "Some text"', "classify a text"))
    if run.stage(PRETRAIN):
        about = "evaluate the model on your text"
        commands.append((f"groundup evaluate {path} --data FILE.txt", about))
    if run.has_recipe:
        commands.append((f"groundup run {path}/recipe.toml --set name=again", "repeat the run from its recipe"))
    if not commands:
        return []
    items = [tag("li", tag("span", about), tag("pre", tag("code", command), tabindex=0)) for command, about in commands]
    return [tag("h3", "Next steps"), tag("ul", items, class_="commands")]
