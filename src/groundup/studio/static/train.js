// Train: runs as they learn, side by side where wanted; recipes started, stopped and taken up again.
import { get, post } from "./api.js";
import { during, el, field, fill, notice, percent, duration, renew, select, short, to } from "./dom.js";
import { Plot, smooth } from "./plot.js";
import { onChange, refresh, runOf, store } from "./store.js";

const POLL = 3000; // a training that is watched wants the cores for itself
const INTERRUPTED = 130; // how a run ends that was stopped
const WINDOW = 20; // steps, of which speed and time left are told

export function train(section) {
  const logs = new Map(); // place -> what has been read of its metrics
  let place = "";
  let timer = 0;
  let shown = false;
  let polling = false;
  let wanted = false; // another look, as soon as this one is over
  let drawn = ""; // of which stages

  const list = el("ul", { class: "runs" });
  const chooser = el("nav", { "aria-label": "Runs" }, el("p", { class: "note" }, "Runs; tick some to see their curves together."), list);
  const tiles = el("dl", { class: "tiles" });
  const actions = el("div", { class: "row" });
  const charts = {
    loss: new Plot("Loss", { unit: "nats per token" }),
    bpb: new Plot("Held-out text", { unit: "bits a byte", across: "steps" }),
    lr: new Plot("Learning rate", { unit: "" }),
    speed: new Plot("Speed", { unit: "tokens/s", zero: true }),
    mfu: new Plot("Use of the machine (MFU)", { unit: "", format: percent, zero: true }),
  };
  const title = el("h3", {}, "");
  const samples = el("ol", { class: "samples" });
  const log = el("pre", { class: "logged", tabIndex: 0, role: "region", "aria-label": "The log of this run" });
  const logged = el("details", { on: { toggle: () => logged.open && poll() } }, el("summary", {}, "What it prints"), log);
  const detail = el("div", { class: "wide" }, title, actions, tiles,
    el("div", { class: "charts" }, Object.values(charts).map((chart) => chart.figure)),
    el("h4", {}, "What it writes on the way"), samples, logged);
  const nothing = el("p", { class: "empty" }, "No run has begun here yet. Start a recipe.");

  const recipe = select([["", "no recipe found"]], { required: true });
  const name = el("input", { type: "text", required: true, pattern: "[A-Za-z0-9_][A-Za-z0-9_.\\-]*", spellcheck: "false" });
  const changes = el("textarea", { rows: "2", spellcheck: "false", placeholder: "pretrain.minutes=2" });
  const start = el("button", { type: "submit", class: "main" }, "Start");
  const form = el("form", { on: { submit: (event) => { event.preventDefault(); begin(); } } },
    field("Recipe", recipe), field("Name of the run", name),
    field("Changes", changes, "One a line: stage.setting=value."), start);
  recipe.addEventListener("change", () => { name.value = named(recipe.value); });

  section.append(
    el("h2", {}, "Train"),
    el("p", { class: "lead" }, "A model learns by guessing the next token and being told what it was. The curve says how wrong it still is: the lower, the better."),
    el("div", { class: "split" }, el("div", { class: "wide" }, nothing, chooser, detail),
      el("aside", { class: "settings", "aria-label": "Start a recipe" }, el("h3", {}, "Start a recipe"), form)));

  const named = (file) => store.home.recipes.find((each) => each.file === file)?.name || "";

  function begin() {
    const wanted = changes.value.split("\n").map((line) => line.trim()).filter(Boolean);
    during(start, async () => {
      await post("/studio/api/start", { recipe: recipe.value, name: name.value, changes: wanted });
      place = `${name.value}/`;
      logs.clear();
      forgetLog();
      await refresh();
      notice(`${name.value} has been started.`);
      changed();
      poll();
    });
  }

  const takeUp = (run, button) => during(button, async () => {
    await post("/studio/api/start", { recipe: `${run.name}/recipe.toml`, name: run.name });
    forgetLog();
    await refresh();
    poll();
  });

  const halt = (run, button) => during(button, async () => {
    await post("/studio/api/stop", { run: run.name });
    notice(`${run.name} is told to stop: it saves what it has.`);
    await refresh();
  });

  // The log of another run, or of an earlier start, must not stand under this one's name.
  function forgetLog(of = "") {
    log.dataset.run = of;
    log.textContent = "";
  }

  // What is chosen, or else the newest that learns or has learned.
  function chosen() {
    const run = runOf(place.split("/")[0]) || store.home.runs.find((each) => busy(each)) || store.home.runs[0];
    const training = run?.stages.filter((stage) => stage.trains) || [];
    const stage = training.find((each) => each.place === place) || training.find((each) => each.state === "running") || training.at(-1);
    return { run, stage };
  }

  const busy = (run) => run.running || run.job?.running;

  function changed() {
    renew(recipe, store.home.recipes.length
      ? store.home.recipes.map((each) => [each.file, each.file]) : [["", "no recipe found"]]);
    if (!name.value) name.value = named(recipe.value);
    start.disabled = !store.home.recipes.length;
    const { run, stage } = chosen();
    nothing.hidden = Boolean(run);
    chooser.hidden = !run;
    detail.hidden = !run;
    drawList(stage);
    if (!run) return;
    title.textContent = stage ? stage.place : run.name;
    if (log.dataset.run !== run.name) {
      forgetLog(run.name);
      if (shown) poll();
    }
    drawActions(run);
    draw();
  }

  function drawList(current) {
    const stages = store.home.runs.flatMap((run) => {
      const training = run.stages.filter((stage) => stage.trains);
      return training.length ? training.map((stage) => [run, stage]) : [[run, null]];
    });
    fill(list, stages.map(([run, stage]) => {
      const id = stage?.place || `${run.name}/`;
      const state = stage ? stage.state : busy(run) ? "running" : "stopped";
      const box = el("input", { type: "checkbox", "aria-label": `Compare ${id}`, checked: Boolean(logs.get(id)?.compared), disabled: !stage });
      box.addEventListener("change", () => { entry(id).compared = box.checked; poll(); });
      return el("li", {}, box, el("a", { href: to("train", id), "aria-current": id === current?.place ? "true" : null },
        el("span", {}, id), el("span", { class: `state ${state}` }, state)));
    }));
  }

  function drawActions(run) {
    const job = run.job;
    const wanted = busy(run)
      ? job?.running ? (job.stopping ? "stopping" : "stop") : "elsewhere"
      : !run.recipe ? "none" : job?.code || run.stages.some((stage) => stage.state === "stopped") ? "resume" : "again";
    if (actions.dataset.shown === `${run.name} ${wanted}`) return;
    actions.dataset.shown = `${run.name} ${wanted}`;
    const failed = job && !job.running && ![0, INTERRUPTED].includes(job.code);
    if (failed) logged.open = true;
    const stop = el("button", { type: "button", on: { click: () => halt(run, stop) } }, "Stop");
    const resume = el("button", { type: "button", class: "main", on: { click: () => takeUp(run, resume) } }, "Resume");
    const again = el("button", { type: "button", on: { click: () => takeUp(run, again) } }, "Run again what has changed");
    fill(actions, { stop, stopping: el("p", { class: "note" }, "It is stopping …"),
      elsewhere: el("p", { class: "note" }, "It was started elsewhere; stop it there."),
      resume, again, none: null }[wanted],
      failed && el("p", { class: "note" }, "It has failed; what it printed says why."));
  }

  function entry(id) {
    if (!logs.has(id)) logs.set(id, { rows: [], mark: "", compared: false, plan: {}, samples: [] });
    return logs.get(id);
  }

  // One at a time: two would each append the same new rows. A call in the meantime makes another one follow at once.
  async function poll() {
    clearTimeout(timer);
    if (!shown) return;
    wanted = polling;
    if (polling) return;
    polling = true;
    try {
      const { run, stage } = chosen();
      const places = new Set([...logs].filter(([, each]) => each.compared).map(([id]) => id));
      if (stage) places.add(stage.place);
      const told = [stage?.place, ...places].join();
      const news = await Promise.all([...places].map(read));
      if (run && (logged.open || (busy(run) && !stage))) {
        const { text } = await get("/studio/api/log", { run: run.name });
        if (log.dataset.run === run.name && log.textContent !== text) {
          log.textContent = text || "This Studio has not started it.";
          log.scrollTop = log.scrollHeight;
        }
      }
      if (told !== drawn || news.some(Boolean)) draw();
      drawn = told;
    } catch (problem) {
      notice(problem.message);
    }
    polling = false;
    const lively = store.home?.runs.some(busy);
    timer = setTimeout(() => !document.hidden && poll(), wanted ? 0 : lively ? POLL : 5 * POLL);
  }

  async function read(id) {
    const mine = entry(id);
    const { rows, mark, again, plan, samples: written } = await get("/studio/api/stage", { place: id, mark: mine.mark });
    const before = JSON.stringify([mine.plan, mine.samples]);
    Object.assign(mine, { rows: again ? rows : mine.rows.concat(rows), mark, plan, samples: written });
    return again || rows.length > 0 || JSON.stringify([plan, written]) !== before;
  }

  const series = (rows, value) => rows.map((row, at) => [row.tokens_seen, value(row, at)]).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  const speedOf = (row, before) => (before && row.step > before.step ? (row.tokens_seen - before.tokens_seen) / (row.seconds * (row.step - before.step)) : NaN);

  function draw() {
    const { run, stage } = chosen();
    const mine = stage && logs.get(stage.place);
    if (!mine) {
      Object.values(charts).forEach((chart) => chart.show([]));
      fill(tiles);
      fill(samples, el("li", { class: "empty" }, run && busy(run) ? "It has not begun to learn yet." : "Nothing has been learned yet."));
      return;
    }
    const { counts } = stage;
    charts.loss.measured(`nats per ${counts.slice(0, -1)}`, counts);
    charts.lr.measured("", counts);
    charts.speed.measured(`${counts}/s`, counts);
    charts.mfu.measured("", counts);
    const others = [...logs].filter(([id, each]) => each.compared && id !== stage.place && countsOf(id) === counts);
    const all = [[stage.place, mine], ...others];
    const losses = all.map(([id, each]) => [id, series(each.rows, (row) => row.loss)]);
    charts.loss.show([
      { name: stage.place, points: losses[0][1], soft: true },
      ...losses.map(([id, points]) => ({ name: id, points: smooth(points) }))]);
    charts.bpb.show(all.map(([id, each]) => ({
      name: id, dots: true,
      points: each.samples.filter((sample) => Number.isFinite(sample.bpb)).map((sample) => [sample.step, sample.bpb]) })));
    const peak = mine.plan.optimizer?.matrix_lr || mine.plan.optimizer?.vector_lr || 1;
    charts.lr.show([{ name: stage.place, points: series(mine.rows, (row) => row.lr_factor * peak) }]);
    charts.speed.show(all.map(([id, each]) => ({ name: id, points: smooth(series(each.rows, (row, at) => speedOf(row, each.rows[at - 1]))) })));
    charts.mfu.show(all.map(([id, each]) => ({ name: id, points: smooth(series(each.rows, (row) => row.mfu ?? NaN)) })));
    drawTiles(stage, mine, charts.speed.lines[0]?.points.at(-1)?.[1]);
    drawSamples(mine);
  }

  const countsOf = (id) => store.home.runs.flatMap((run) => run.stages).find((stage) => stage.place === id)?.counts;

  function drawTiles(stage, mine, speed) {
    const last = mine.rows.at(-1);
    const total = last?.total_steps ?? mine.plan.total_steps;
    const recent = mine.rows.slice(-WINDOW).map((row) => row.seconds).sort((a, b) => a - b);
    const left = last && total && stage.state === "running" ? (total - last.step) * recent[Math.floor(recent.length / 2)] : null;
    const bpb = mine.samples.findLast((sample) => Number.isFinite(sample.bpb))?.bpb;
    const facts = [
      ["State", { done: "done", running: "learning", stopped: "stopped" }[stage.state]],
      ["Step", last && `${last.step.toLocaleString("en")}${total ? ` of ${total.toLocaleString("en")}` : ""}`],
      ["Loss", last && smooth(series(mine.rows, (row) => row.loss)).at(-1)?.[1].toFixed(3)],
      ["Bits a byte", bpb?.toFixed(3)],
      ["Speed", speed && `${short(speed)} ${stage.counts}/s`],
      ["MFU", Number.isFinite(last?.mfu) && percent(last.mfu)],
      ["Time left", left !== null && duration(left)],
      ["Seen", last && `${short(last.tokens_seen)} ${stage.counts}`],
    ];
    fill(tiles, facts.filter(([, value]) => value).map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value))));
  }

  function drawSamples(mine) {
    const stamp = JSON.stringify(mine.samples.map((sample) => sample.step));
    if (samples.dataset.stamp === stamp) return;
    samples.dataset.stamp = stamp;
    fill(samples, mine.samples.length ? [...mine.samples].reverse().map((sample) => el("li", {},
      el("p", { class: "who" }, `step ${sample.step.toLocaleString("en")}${sample.bpb ? `, ${sample.bpb.toFixed(3)} bits a byte` : ""}`),
      el("p", { class: "written", dir: "auto" }, sample.text)))
      : el("li", { class: "empty" }, "It has not shown anything yet."));
  }

  onChange(() => changed());
  changed();
  return {
    changed,
    rest() { shown = false; clearTimeout(timer); },
    show(wanted) {
      shown = true;
      if (wanted) place = wanted;
      changed();
      poll();
    },
  };
}
