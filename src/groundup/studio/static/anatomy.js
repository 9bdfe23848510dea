// The model as a body: where its weights are, and how it tells places apart.
import { el, fill, percent, short } from "./dom.js";
import { Heat } from "./heat.js";

// Which part of a model a tensor belongs to, by its name.
const PARTS = [
  ["embeddings", "token embeddings", /embed_tokens/, "one row for each word of the vocabulary"],
  ["embeddings", "position embeddings", /embed_positions/, "one row for each place"],
  ["attention", "attention", /self_attn/, "who looks at whom"],
  ["mlp", "feed-forward", /mlp/, "where most of what it knows is kept"],
  ["head", "output matrix", /lm_head/, "scores every word as the next one"],
  ["norm", "norms", /norm/, "keep the numbers in range"],
];

const partOf = (name) => PARTS.find(([, , pattern]) => pattern.test(name)) || PARTS.at(-1);

export function anatomyPanel(ask) {
  const whole = el("div", { class: "bars" });
  const one = el("div", { class: "bars" });
  const said = el("p", { class: "note" });
  const places = el("canvas", { class: "places-map", role: "img" });
  const explained = el("p", { class: "lesson" });
  const axes = el("p", { class: "axis-note" });
  const heat = new Heat(places);
  let of = null;

  const section = el("div", {},
    el("section", { class: "panel", id: "positions", "aria-label": "Positions" }, el("h3", {}, "Positions"), explained, places, axes),
    el("section", { class: "panel", id: "weights", "aria-label": "Parameter map" },
      el("h3", {}, "Parameter map"),
      el("p", { class: "lesson" }, "All that a model has learned is in its weights; this is how many of them each part holds."),
      said, el("h4", {}, "The whole model"), whole, el("h4", {}, "One layer"), one));

  function bars(holder, rows) {
    const total = rows.reduce((sum, row) => sum + row.count, 0);
    const most = Math.max(...rows.map((row) => row.count));
    fill(holder, rows.map((row) => el("div", { class: "bar-row" },
      el("span", { class: "bar-name" }, row.label, row.about && el("small", {}, row.about)),
      el("span", { class: "bar-track" }, el("span", { class: `bar ${row.kind}`, vars: { "--share": (row.count / most).toFixed(4) } })),
      el("span", { class: "bar-value" }, `${short(row.count)} · ${percent(row.count / total)}`))));
  }

  function draw(told) {
    const groups = new Map();
    for (const { name, count } of told.weights) {
      const [kind, label, , about] = partOf(name);
      const key = kind === "attention" || kind === "mlp" ? `${label}, ${told.shape.n_layers} layers` : label;
      const row = groups.get(key) || { kind, label: key, about, count: 0 };
      row.count += count;
      groups.set(key, row);
    }
    bars(whole, [...groups.values()]);
    const inLayer = told.weights.filter(({ name }) => /layers\.0\./.test(name)).map(({ name, count }) => ({
      kind: partOf(name)[0], label: name.replace(/^.*layers\.0\.|\.weight$/g, ""), count }));
    bars(one, inLayer.filter(({ count }) => count > 0));
    const total = told.weights.reduce((sum, { count }) => sum + count, 0);
    const { shape } = told;
    said.textContent = `${total.toLocaleString("en")} weights: ${shape.n_layers} layers, ${shape.dim} wide, ${shape.n_heads} heads, a vocabulary of ${shape.vocab_size.toLocaleString("en")}${shape.tie_embeddings ? "; one matrix reads words and scores them" : ""}.`;
    drawPlaces(told.positions);
  }

  function drawPlaces({ kind, rows }) {
    const [count, wide] = [rows.length, rows[0].length];
    heat.show(count, wide, (y, x) => (rows[y][x] + 1) / 2);
    const rotary = kind === "rotary";
    explained.textContent = rotary
      ? "A model feels how far apart two tokens are by turning pairs of numbers, like the hands of many clocks: fast hands tell neighbours apart, slow ones tell near from far."
      : "This model has learned an embedding for each place; places near each other look alike to it.";
    axes.textContent = rotary ? "down: pairs of a head's numbers, the fastest first; across: tokens apart" : "down and across: places in the text";
    places.setAttribute("aria-label", rotary ? `${count} pairs by ${wide} distances` : `${count} places by ${wide} places`);
  }

  return {
    section,
    async show(reading) {
      const stamp = `${reading.model} ${reading.step}`;
      if (of === stamp) return;
      of = stamp;
      draw(await ask("anatomy"));
    },
  };
}
