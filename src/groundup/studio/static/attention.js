// The panel that shows the attention weights of each head in each layer.
import { el, field, fill, formatNumber, formatPercent, notice, select, updateOptions } from "./dom.js";
import { Heatmap } from "./heatmap.js";
import { navigateTokens, tokenElement } from "./tokens.js";

// The statistics that can color the map of heads. Each entry has the index of the statistic in the server's response, a
// label, and an explanation.
const STATISTICS = [
  ["1", "Weight on the first token", "Many heads attend to the first token (attention sink) when they have nothing to contribute."],
  ["2", "Weight on the previous token", "A previous-token head gives each token information about the token before it."],
  ["3", "Weight on the token itself", "A head that attends to the token itself passes its own features on."],
  ["4", "Entropy", "A head with high entropy averages over all previous tokens."],
  ["0", "Mean distance", "A head with a large mean distance can copy information from tokens that are many positions earlier."],
];

export function attentionPanel(fetchPanel) {
  let reading = null;
  let weights = null; // the attention weights of one layer: { heads, tokens, bytes }
  let [layer, head, query] = [0, 0, 0];
  let requests = 0;

  const statistic = select(STATISTICS.map(([index, name]) => [index, name]));
  const layers = select([]);
  const heads = select([]);
  const headCanvas = el("canvas", { class: "heads-map", role: "img" });
  const weightCanvas = el("canvas", { class: "weights-map", role: "img" });
  const headNote = el("p", { class: "note" });
  const weightNote = el("p", { class: "note", "aria-live": "polite" });
  const row = el("p", { class: "tokens", dir: "auto" });
  const headMap = new Heatmap(headCanvas, (y, x, pressed) => {
    headNote.textContent = `Layer ${y + 1}, head ${x + 1}: ${describe(y, x)}`;
    if (pressed) selectHead(y, x);
  }, 3);
  const weightMap = new Heatmap(weightCanvas, (y, x, pressed) => {
    if (pressed) showQuery(y);
    if (x <= y) weightNote.textContent = `“${reading.tokens[y].text}” attends to “${reading.tokens[x].text}” with weight ${formatPercent(weight(y, x))}.`;
  });

  statistic.addEventListener("change", drawHeads);
  layers.addEventListener("change", () => selectHead(Number(layers.value), head));
  heads.addEventListener("change", () => selectHead(layer, Number(heads.value)));
  navigateTokens(row, (span) => showQuery(Number(span.dataset.index)));

  const section = el("section", { class: "panel", id: "attention", "aria-label": "Attention weights" },
    el("h3", {}, "Attention weights"),
    el("p", { class: "lesson" }, "In self-attention, each token combines information from the tokens before it. Each head of each layer has learned its own weights."),
    el("div", { class: "two" },
      el("div", {}, field("Color heads by", statistic), headCanvas, el("p", { class: "axis-note" }, "Each row is a layer; the first layer is at the top. Each column is a head."), headNote),
      el("div", {}, el("div", { class: "pair" }, field("Layer", layers), field("Head", heads)), weightCanvas,
        el("p", { class: "axis-note" }, "Each row is a query token, and each column is a key token."), weightNote)),
    el("p", { class: "note" }, "Select a token to see which tokens it attends to in this head."), row);

  const nameOf = (index) => STATISTICS.find(([each]) => each === index)[1].toLowerCase();
  const describe = (y, x) => {
    const value = reading.head_stats[y][x][Number(statistic.value)];
    return `${nameOf(statistic.value)} ${statistic.value === "0" ? `${formatNumber(value)} tokens` : formatPercent(value)}`;
  };
  const weight = (y, x) => weights.bytes[(head * weights.tokens + y) * weights.tokens + x] / 255;

  function drawHeads() {
    const index = Number(statistic.value);
    const max = index ? 1 : Math.max(...reading.head_stats.flat().map((stats) => stats[0]), 1);
    headCanvas.style.maxWidth = `min(100%, ${46 * reading.heads}px)`;
    headMap.show(reading.layers, reading.heads, (y, x) => reading.head_stats[y][x][index] / max, [layer, head]);
    headCanvas.setAttribute("aria-label", `${reading.heads} heads in ${reading.layers} layers, colored by ${nameOf(statistic.value)}. Selected head: ${describe(layer, head)}.`);
    headNote.textContent = STATISTICS.find(([each]) => each === statistic.value)[2];
  }

  async function selectHead(y, x) {
    const request = (requests += 1);
    [layer, head] = [y, x];
    layers.value = String(y);
    heads.value = String(x);
    drawHeads();
    try {
      if (weights?.layer !== y) {
        const response = await fetchPanel("attention", { layer: y });
        if (request !== requests) return;
        weights = { ...response, layer: y, bytes: Uint8Array.from(atob(response.weights), (each) => each.charCodeAt(0)) };
      }
      drawWeights();
    } catch (error) {
      notice(error.message);
    }
  }

  function drawWeights() {
    weightMap.show(weights.tokens, weights.tokens, (y, x) => (x > y ? null : Math.sqrt(weight(y, x))), null);
    weightCanvas.setAttribute("aria-label", `Attention weights of head ${head + 1} in layer ${layer + 1}, ${weights.tokens} by ${weights.tokens} tokens`);
    showQuery(query);
  }

  function showQuery(index) {
    query = Math.min(index, weights.tokens - 1);
    [...row.children].forEach((span, key) => {
      span.classList.toggle("masked", key > query);
      span.setAttribute("aria-pressed", String(key === query));
      span.style.setProperty("--heat", key <= query ? weight(query, key).toFixed(3) : "0");
    });
    const best = [...Array(query + 1).keys()].sort((a, b) => weight(query, b) - weight(query, a))[0];
    weightNote.textContent = `“${reading.tokens[query].text}” attends most to “${reading.tokens[best].text}” (${formatPercent(weight(query, best))}).`;
  }

  return {
    section,
    select(index) { if (weights) showQuery(index); },
    async show(newReading) {
      reading = newReading;
      weights = null;
      query = reading.tokens.length - 1;
      fill(row, reading.tokens.map((token, index) => tokenElement(token.text, {
        special: token.special, first: index === 0, button: true, "data-index": String(index) })));
      const options = (count) => [...Array(count).keys()].map((each) => [String(each), String(each + 1)]);
      updateOptions(layers, options(reading.layers));
      updateOptions(heads, options(reading.heads));
      await selectHead(Math.min(layer, reading.layers - 1), Math.min(head, reading.heads - 1));
    },
  };
}
