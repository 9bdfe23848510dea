"""What it cost, what it was made from, how to make it again, and what to do now."""

from __future__ import annotations

from groundup.core.console import format_duration
from groundup.core.facts import Facts
from groundup.core.files import shell_quoted
from groundup.report.charts import Bar, draw_bar_chart, figure
from groundup.report.html import Child, Html, folded, table, tag
from groundup.report.record import CLASSIFY, COLLECT, EVALUATE, INSTRUCT, PRETRAIN, RunRecord, StageOutput
from groundup.report.words import count, duration, moment, percent

_DIGEST = 12  # characters of a digest that are shown


def cost(run: RunRecord) -> list[Child]:
    """Time by stage, machine, provenance, and how to repeat it."""
    total = sum(output.artifact.seconds for output in run.outputs) or 1.0
    rows = [
        Bar(
            f"{output.stage.replace('.', ' ')} → {output.directory.name}/",
            f"{format_duration(output.artifact.seconds)} · {percent(output.artifact.seconds / total, 0)}",
            output.artifact.seconds,
        )
        for output in run.outputs
    ]
    title = "Time, stage by stage"
    description = f"Bars: {'; '.join(f'{row.label} {row.shown}' for row in rows)}."
    sheet = [[output.stage, f"{output.directory.name}/", f"{output.artifact.seconds:,.1f}"] for output in run.outputs]
    figures = table(title, ("stage", "output", "seconds"), sheet, figures=1)
    note = f"{duration(total)} of work in all."
    drawn = figure(title, draw_bar_chart("time", title, description, rows), note=note, figures=figures)
    return [drawn, _machine(run), *_provenance(run), *_again(run)]


def _machine(run: RunRecord) -> Html:
    latest = run.outputs[-1].artifact
    machine, versions = Facts(latest.machine), Facts(latest.versions)
    base = run.stage(PRETRAIN)
    rows = [
        ("system", f"{machine.words('system')} {machine.words('machine')}".strip()),
        ("CPU cores", machine.words("cpus")),
        ("trained on", base.facts.words("machine", "device") if base else ""),
        *((name, version.words()) for name, version in versions.items()),
    ]
    changed = [
        output.directory.name
        for output in run.outputs
        if (output.artifact.machine, output.artifact.versions) != (latest.machine, latest.versions)
    ]
    note = None
    if changed:
        note = tag("p", f"Made on another machine or with other versions: {', '.join(changed)}.", class_="note")
    return folded(
        "Machine and versions", table("Machine and versions", ("", ""), [r for r in rows if r[1]], class_="facts"), note
    )


def _provenance(run: RunRecord) -> list[Child]:
    told = (
        "Each stage wrote down the digests of what it read and of what it left. When this page was made, each input "
        "was looked up again among the outputs in this directory; ✓ says that it is still exactly what was read."
    )
    rows = [
        [
            f"{output.directory.name}/",
            tag("code", output.artifact.digest[:_DIGEST]),
            _made_from(run, output),
            moment(output.artifact.finished_at),
        ]
        for output in run.outputs
    ]
    return [
        tag("h3", "Where it comes from"),
        tag("p", told),
        table("Provenance", ("output", "digest", "made from", "finished"), rows, figures=1),
    ]


def _made_from(run: RunRecord, output: StageOutput) -> Child:
    if output.stage == COLLECT:
        return count(len(output.artifact.inputs), "source")
    parts: list[Child] = []
    for name, digest in output.artifact.inputs.items():
        source = run.made_by(digest)
        short = tag("code", str(digest)[:_DIGEST])
        where = f"✓ {source.directory.name}/" if source else f"{name}, from elsewhere or replaced since"
        parts += [tag("br") if parts else None, short, " ", where]
    return parts or "its settings alone"


def _again(run: RunRecord) -> list[Child]:
    """Commands: to make it again, and to go on."""
    place = shell_quoted(run.place)
    commands: list[tuple[str, str]] = []
    if (base := run.stage(PRETRAIN)) is not None:  # the run itself stands for its chat model, where it has one
        written = shell_quoted(f"{run.place}/{base.directory.name}")
        commands.append((f'groundup generate {written} "Once upon a time"', "let the base model write"))
    if run.stage(INSTRUCT):
        commands.append((f"groundup chat {place}", "talk with it"))
    if run.stage(CLASSIFY):
        commands.append((f'groundup classify {place} "Some text"', "classify a text"))
    if run.stage(PRETRAIN):
        again = "measure it on a text of yours" if run.stage(EVALUATE) else "measure it"
        commands.append((f"groundup evaluate {place} --data FILE.txt", again))
    if run.recipe:
        commands.append(
            (f"groundup run {place}/recipe.toml --set name=again", "make it again, from the recipe beside this page")
        )
    if not commands:
        return []
    items = [tag("li", tag("span", about), tag("pre", tag("code", command), tabindex=0)) for command, about in commands]
    return [tag("h3", "What now"), tag("ul", items, class_="commands")]
