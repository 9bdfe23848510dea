// The panels that show the positional encoding and the number of parameters of each part of the model.
import { el, fill, formatNumber, formatPercent } from "./dom.js";
import { Heatmap } from "./heatmap.js";

// The parts of the model. The name of a tensor determines its part.
const PARTS = [
  ["embeddings", "token embeddings", /embed_tokens/, "one row per token of the vocabulary"],
  ["embeddings", "positional embeddings", /embed_positions/, "one row per position"],
  ["attention", "attention", /self_attn/, "query, key, value and output projections"],
  ["mlp", "MLP", /mlp/, "applied to each position separately"],
  ["head", "output projection", /lm_head/, "computes the logit of each token"],
  ["norm", "norms", /norm/, "scale the activations"],
];

const partOf = (name) => PARTS.find(([, , pattern]) => pattern.test(name)) || PARTS.at(-1);

export function parametersPanel(fetchPanel) {
  const model = el("div", { class: "bars" });
  const layer = el("div", { class: "bars" });
  const summary = el("p", { class: "note" });
  const canvas = el("canvas", { class: "positions-map", role: "img" });
  const explanation = el("p", { class: "lesson" });
  const axes = el("p", { class: "axis-note" });
  const heatmap = new Heatmap(canvas);
  let shown = null; // the model and the training step that are shown

  const section = el("div", {},
    el("section", { class: "panel", id: "positions", "aria-label": "Positional encoding" }, el("h3", {}, "Positional encoding"), explanation, canvas, axes),
    el("section", { class: "panel", id: "parameters", "aria-label": "Parameters" },
      el("h3", {}, "Parameters"),
      el("p", { class: "lesson" }, "Training sets the parameters of the model. The bars show the number of parameters of each part."),
      summary, el("h4", {}, "Whole model"), model, el("h4", {}, "One layer"), layer));

  function bars(parent, rows) {
    const total = rows.reduce((sum, row) => sum + row.count, 0);
    const max = Math.max(...rows.map((row) => row.count));
    fill(parent, rows.map((row) => el("div", { class: "bar-row" },
      el("span", { class: "bar-name" }, row.label, row.about && el("small", {}, row.about)),
      el("span", { class: "bar-track" }, el("span", { class: `bar ${row.kind}`, vars: { "--share": (row.count / max).toFixed(4) } })),
      el("span", { class: "bar-value" }, `${formatNumber(row.count)} · ${formatPercent(row.count / total)}`))));
  }

  function draw({ weights, shape, positions }) {
    const groups = new Map();
    for (const { name, count } of weights) {
      const [kind, label, , about] = partOf(name);
      const key = kind === "attention" || kind === "mlp" ? `${label}, ${shape.n_layers} layers` : label;
      const row = groups.get(key) || { kind, label: key, about, count: 0 };
      row.count += count;
      groups.set(key, row);
    }
    bars(model, [...groups.values()]);
    const inLayer = weights.filter(({ name }) => /layers\.0\./.test(name)).map(({ name, count }) => ({
      kind: partOf(name)[0], label: name.replace(/^.*layers\.0\.|\.weight$/g, ""), count }));
    bars(layer, inLayer.filter(({ count }) => count > 0));
    const total = weights.reduce((sum, { count }) => sum + count, 0);
    summary.textContent = `${total.toLocaleString("en")} parameters: ${shape.n_layers} layers, hidden size ${shape.dim}, ${shape.n_heads} heads, vocabulary size ${shape.vocab_size.toLocaleString("en")}${shape.tie_embeddings ? ", tied embeddings" : ""}.`;
    drawPositions(positions);
  }

  function drawPositions({ kind, rows }) {
    const [numRows, numColumns] = [rows.length, rows[0].length];
    heatmap.show(numRows, numColumns, (y, x) => (rows[y][x] + 1) / 2);
    const rotary = kind === "rotary";
    explanation.textContent = rotary
      ? "Rotary position embeddings (RoPE) rotate pairs of features by an angle that grows with the position. Pairs that rotate fast distinguish adjacent tokens, and pairs that rotate slowly distinguish near tokens from far tokens."
      : "This model has learned one embedding per position. The picture shows the cosine similarity of each pair of positions.";
    axes.textContent = rotary ? "Each row is a feature pair of a head; the fastest pair is at the top. Each column is a distance in tokens." : "Each row and each column is a position.";
    canvas.setAttribute("aria-label", rotary ? `${numRows} feature pairs by ${numColumns} distances` : `${numRows} by ${numColumns} positions`);
  }

  return {
    section,
    async show(reading) {
      const key = `${reading.model} ${reading.step}`;
      if (shown === key) return;
      shown = key;
      draw(await fetchPanel("parameters"));
    },
  };
}
