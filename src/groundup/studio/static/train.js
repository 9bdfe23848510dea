// The Train view, which shows live metrics of runs, and starts, stops and resumes runs.
import { get, post } from "./api.js";
import { el, field, fill, formatDuration, formatNumber, formatPercent, hashLink, notice, runWith, select, updateOptions } from "./dom.js";
import { Plot, smooth } from "./plot.js";
import { findRun, isRunning, onChange, refresh, store } from "./store.js";

const POLL_MS = 3000; // the interval is long because training uses the same cores
const INTERRUPTED = 130; // the exit code of a run that was stopped
const WINDOW = 20; // the remaining time is estimated from this number of steps

export function train(section) {
  const logs = new Map(); // maps stage ids to the metrics, the plan and the samples of the stage
  let selected = ""; // the selected stage id, or "RUN/" if no training stage of the run has started
  let timer = 0;
  let visible = false;
  let polling = false;
  let pollAgain = false; // whether to poll again when the current poll is done
  let drawnStages = "";

  const list = el("ul", { class: "runs" });
  const runs = el("nav", { "aria-label": "Runs" }, el("p", { class: "note" }, "Select a run. Check the boxes of other runs to compare curves."), list);
  const tiles = el("dl", { class: "tiles" });
  const actions = el("div", { class: "row" });
  const charts = {
    loss: new Plot("Loss", { unit: "nats per token" }),
    bpb: new Plot("Validation", { unit: "bits per byte", xLabel: "steps" }),
    lr: new Plot("Learning rate", { unit: "" }),
    throughput: new Plot("Throughput", { unit: "tokens/s", fromZero: true }),
    mfu: new Plot("Model FLOPs utilization (MFU)", { unit: "", format: formatPercent, fromZero: true }),
  };
  const title = el("h3", {}, "");
  const samples = el("ol", { class: "samples" });
  const log = el("pre", { class: "run-log", tabIndex: 0, role: "region", "aria-label": "Log of this run" });
  const logDetails = el("details", { on: { toggle: () => logDetails.open && poll() } }, el("summary", {}, "Log"), log);
  const details = el("div", { class: "wide" }, title, actions, tiles,
    el("div", { class: "charts" }, Object.values(charts).map((chart) => chart.figure)),
    el("h4", {}, "Samples"), samples, logDetails);
  const empty = el("p", { class: "empty" }, "No runs found. Start a recipe.");

  const recipe = select([["", "No recipes found"]], { required: true });
  const name = el("input", { type: "text", required: true, pattern: "[A-Za-z0-9_][A-Za-z0-9_.\\-]*", spellcheck: "false" });
  const overrides = el("textarea", { rows: "2", spellcheck: "false", placeholder: "pretrain.minutes=2" });
  const start = el("button", { type: "submit", class: "main" }, "Start");
  const form = el("form", { on: { submit: (event) => { event.preventDefault(); startRun(); } } },
    field("Recipe", recipe), field("Run name", name),
    field("Overrides", overrides, "Write one stage.setting=value per line."), start);
  recipe.addEventListener("change", () => { name.value = defaultName(recipe.value); });

  section.append(
    el("h2", {}, "Train"),
    el("p", { class: "lead" }, "Training minimizes the loss, the negative log-probability of the next token. Lower is better."),
    el("div", { class: "split" }, el("div", { class: "wide" }, empty, runs, details),
      el("aside", { class: "settings", "aria-label": "Start a recipe" }, el("h3", {}, "Start a recipe"), form)));

  const defaultName = (file) => store.overview.recipes.find((each) => each.file === file)?.name || "";

  function startRun() {
    const settings = overrides.value.split("\n").map((line) => line.trim()).filter(Boolean);
    runWith(start, async () => {
      await post("/studio/api/start", { recipe: recipe.value, name: name.value, overrides: settings });
      selected = `${name.value}/`;
      logs.clear();
      clearLog();
      await refresh();
      notice(`Started ${name.value}.`);
      changed();
      poll();
    });
  }

  const resumeRun = (run, button) => runWith(button, async () => {
    await post("/studio/api/start", { recipe: `${run.name}/recipe.toml`, name: run.name });
    clearLog();
    await refresh();
    poll();
  });

  const stopRun = (run, button) => runWith(button, async () => {
    await post("/studio/api/stop", { run: run.name });
    notice(`Stopping ${run.name}. It saves a checkpoint first.`);
    await refresh();
  });

  // Clear the log, so that it is not shown for another run or an earlier start.
  function clearLog(runName = "") {
    log.dataset.run = runName;
    log.textContent = "";
  }

  // Returns the selected run and stage. By default, it is the newest run that is running, otherwise the newest run.
  function selection() {
    const run = findRun(selected.split("/")[0]) || store.overview.runs.find(isRunning) || store.overview.runs[0];
    const training = run?.stages.filter((stage) => stage.has_metrics) || [];
    const stage = training.find((each) => each.id === selected) || training.find((each) => each.state === "running") || training.at(-1);
    return { run, stage };
  }

  function changed() {
    updateOptions(recipe, store.overview.recipes.length
      ? store.overview.recipes.map((each) => [each.file, each.file]) : [["", "No recipes found"]]);
    if (!name.value) name.value = defaultName(recipe.value);
    start.disabled = !store.overview.recipes.length;
    const { run, stage } = selection();
    empty.hidden = Boolean(run);
    runs.hidden = !run;
    details.hidden = !run;
    drawList(stage);
    if (!run) return;
    title.textContent = stage ? stage.id : run.name;
    if (log.dataset.run !== run.name) {
      clearLog(run.name);
      if (visible) poll();
    }
    drawActions(run);
    draw();
  }

  function drawList(current) {
    const stages = store.overview.runs.flatMap((run) => {
      const training = run.stages.filter((stage) => stage.has_metrics);
      return training.length ? training.map((stage) => [run, stage]) : [[run, null]];
    });
    fill(list, stages.map(([run, stage]) => {
      const id = stage?.id || `${run.name}/`;
      const state = stage ? stage.state : isRunning(run) ? "running" : "stopped";
      const box = el("input", { type: "checkbox", "aria-label": `Compare ${id}`, checked: Boolean(logs.get(id)?.compared), disabled: !stage });
      box.addEventListener("change", () => { entry(id).compared = box.checked; poll(); });
      return el("li", {}, box, el("a", { href: hashLink("train", id), "aria-current": id === current?.id ? "true" : null },
        el("span", {}, id), el("span", { class: `state ${state}` }, state)));
    }));
  }

  function drawActions(run) {
    const job = run.job;
    const action = isRunning(run)
      ? job?.running ? (job.stopping ? "stopping" : "stop") : "external"
      : !run.has_recipe ? "none" : job?.code || run.stages.some((stage) => stage.state === "stopped") ? "resume" : "rerun";
    if (actions.dataset.shown === `${run.name} ${action}`) return;
    actions.dataset.shown = `${run.name} ${action}`;
    const failed = job && !job.running && ![0, INTERRUPTED].includes(job.code);
    if (failed) logDetails.open = true;
    const stop = el("button", { type: "button", on: { click: () => stopRun(run, stop) } }, "Stop");
    const resume = el("button", { type: "button", class: "main", on: { click: () => resumeRun(run, resume) } }, "Resume");
    const rerun = el("button", { type: "button", on: { click: () => resumeRun(run, rerun) } }, "Rerun changed stages");
    fill(actions, { stop, stopping: el("p", { class: "note" }, "Stopping …"),
      external: el("p", { class: "note" }, "Started in a terminal. Stop it there with Ctrl-C."),
      resume, rerun, none: null }[action],
      failed && el("p", { class: "note" }, "The run failed. See the log for the error."));
  }

  function entry(id) {
    if (!logs.has(id)) logs.set(id, { rows: [], cursor: "", compared: false, plan: {}, samples: [] });
    return logs.get(id);
  }

  // Only one poll runs at a time, because two polls would append the same rows. A call during a poll starts another
  // poll
// when the current poll is done.
  async function poll() {
    clearTimeout(timer);
    if (!visible) return;
    pollAgain = polling;
    if (polling) return;
    polling = true;
    try {
      const { run, stage } = selection();
      const ids = new Set([...logs].filter(([, each]) => each.compared).map(([id]) => id));
      if (stage) ids.add(stage.id);
      const stages = [stage?.id, ...ids].join();
      const updates = await Promise.all([...ids].map(fetchRows));
      if (run && (logDetails.open || (isRunning(run) && !stage))) {
        const { text } = await get("/studio/api/log", { run: run.name });
        if (log.dataset.run === run.name && log.textContent !== text) {
          log.textContent = text || "No log: this Studio did not start the run.";
          log.scrollTop = log.scrollHeight;
        }
      }
      if (stages !== drawnStages || updates.some(Boolean)) draw();
      drawnStages = stages;
    } catch (error) {
      notice(error.message);
    }
    polling = false;
    const active = store.overview?.runs.some(isRunning);
    timer = setTimeout(() => !document.hidden && poll(), pollAgain ? 0 : active ? POLL_MS : 5 * POLL_MS);
  }

  // Fetch new metrics of a stage, and return whether anything has changed.
  async function fetchRows(id) {
    const stage = entry(id);
    const { rows, cursor, reset, plan, samples: generated } = await get("/studio/api/stage", { id, cursor: stage.cursor });
    const before = JSON.stringify([stage.plan, stage.samples]);
    Object.assign(stage, { rows: reset ? rows : stage.rows.concat(rows), cursor, plan, samples: generated });
    return reset || rows.length > 0 || JSON.stringify([plan, generated]) !== before;
  }

  const series = (rows, value) => rows.map((row, index) => [row.tokens_seen, value(row, index)]).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  const throughput = (row, previous) => (previous && row.step > previous.step ? (row.tokens_seen - previous.tokens_seen) / (row.seconds * (row.step - previous.step)) : NaN);

  function draw() {
    const { run, stage } = selection();
    const current = stage && logs.get(stage.id);
    if (!current) {
      Object.values(charts).forEach((chart) => chart.show([]));
      fill(tiles);
      fill(samples, el("li", { class: "empty" }, run && isRunning(run) ? "Training has not started." : "This run has no training metrics."));
      return;
    }
    const { unit } = stage;
    charts.loss.setUnits(`nats per ${unit.slice(0, -1)}`, unit);
    charts.lr.setUnits("", unit);
    charts.throughput.setUnits(`${unit}/s`, unit);
    charts.mfu.setUnits("", unit);
    const others = [...logs].filter(([id, each]) => each.compared && id !== stage.id && unitOf(id) === unit);
    const all = [[stage.id, current], ...others];
    const losses = all.map(([id, each]) => [id, series(each.rows, (row) => row.loss)]);
    charts.loss.show([
      { name: stage.id, points: losses[0][1], raw: true },
      ...losses.map(([id, points]) => ({ name: id, points: smooth(points) }))]);
    charts.bpb.show(all.map(([id, each]) => ({
      name: id, dots: true,
      points: each.samples.filter((sample) => Number.isFinite(sample.bpb)).map((sample) => [sample.step, sample.bpb]) })));
    const peak = current.plan.optimizer?.matrix_lr || current.plan.optimizer?.vector_lr || 1;
    charts.lr.show([{ name: stage.id, points: series(current.rows, (row) => row.lr_factor * peak) }]);
    charts.throughput.show(all.map(([id, each]) => ({ name: id, points: smooth(series(each.rows, (row, index) => throughput(row, each.rows[index - 1]))) })));
    charts.mfu.show(all.map(([id, each]) => ({ name: id, points: smooth(series(each.rows, (row) => row.mfu ?? NaN)) })));
    drawTiles(stage, current, charts.throughput.lines[0]?.points.at(-1)?.[1]);
    drawSamples(current);
  }

  const unitOf = (id) => store.overview.runs.flatMap((run) => run.stages).find((stage) => stage.id === id)?.unit;

  function drawTiles(stage, { rows, plan, samples: generated }, tokensPerSecond) {
    const last = rows.at(-1);
    const total = last?.total_steps ?? plan.total_steps;
    const recent = rows.slice(-WINDOW).map((row) => row.seconds).sort((a, b) => a - b);
    const secondsLeft = last && total && stage.state === "running" ? (total - last.step) * recent[Math.floor(recent.length / 2)] : null;
    const bpb = generated.findLast((sample) => Number.isFinite(sample.bpb))?.bpb;
    const numbers = [
      ["State", stage.state],
      ["Step", last && `${last.step.toLocaleString("en")}${total ? ` of ${total.toLocaleString("en")}` : ""}`],
      ["Loss", last && smooth(series(rows, (row) => row.loss)).at(-1)?.[1].toFixed(3)],
      ["Validation bits per byte", bpb?.toFixed(3)],
      ["Throughput", tokensPerSecond && `${formatNumber(tokensPerSecond)} ${stage.unit}/s`],
      ["MFU", Number.isFinite(last?.mfu) && formatPercent(last.mfu)],
      ["Time left", secondsLeft !== null && formatDuration(secondsLeft)],
      ["Seen", last && `${formatNumber(last.tokens_seen)} ${stage.unit}`],
    ];
    fill(tiles, numbers.filter(([, value]) => value).map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value))));
  }

  function drawSamples({ samples: generated }) {
    const steps = JSON.stringify(generated.map((sample) => sample.step));
    if (samples.dataset.steps === steps) return;
    samples.dataset.steps = steps;
    fill(samples, generated.length ? [...generated].reverse().map((sample) => el("li", {},
      el("p", { class: "who" }, `Step ${sample.step.toLocaleString("en")}${sample.bpb ? `, ${sample.bpb.toFixed(3)} bits per byte` : ""}`),
      el("p", { class: "generated", dir: "auto" }, sample.text)))
      : el("li", { class: "empty" }, "No samples so far."));
  }

  onChange(() => changed());
  changed();
  return {
    changed,
    hide() { visible = false; clearTimeout(timer); },
    show(id) {
      visible = true;
      if (id) selected = id;
      changed();
      poll();
    },
  };
}
