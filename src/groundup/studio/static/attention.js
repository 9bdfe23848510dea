// Attention: which tokens each one looks at, by layer and head.
import { el, field, fill, notice, percent, renew, select, short } from "./dom.js";
import { Heat } from "./heat.js";
import { token, walk } from "./tokens.js";

// What the map of heads shows: the place of the figure in what the server tells, its name, its sentence.
const ASPECTS = [
  ["1", "the first token", "Many heads rest on the first token when there is nothing for them to do."],
  ["2", "the token before", "A head that looks at the token before lets a word know what it follows."],
  ["3", "itself", "A head that looks at the token itself passes on what is there."],
  ["4", "everything alike", "A head that spreads its attention takes the mean of what was said."],
  ["0", "far back", "A head that looks far back can find what was said long ago."],
];

export function attentionPanel(ask) {
  let reading = null;
  let weights = null; // of one layer: { heads, tokens, bytes }
  let [layer, head, at] = [0, 0, 0];
  let asked = 0;

  const aspect = select(ASPECTS.map(([place, name]) => [place, name]));
  const layers = select([]);
  const heads = select([]);
  const grid = el("canvas", { class: "grid-map", role: "img" });
  const square = el("canvas", { class: "square-map", role: "img" });
  const reason = el("p", { class: "note" });
  const said = el("p", { class: "note", "aria-live": "polite" });
  const row = el("p", { class: "tokens", dir: "auto" });
  const map = new Heat(grid, (y, x, pressed) => {
    reason.textContent = `layer ${y + 1}, head ${x + 1}: ${figure(y, x)}`;
    if (pressed) choose(y, x);
  }, 3);
  const detail = new Heat(square, (y, x, pressed) => {
    if (pressed) show(y);
    if (x <= y) said.textContent = `“${reading.tokens[y].text}” gives ${percent(of(y, x))} of its attention to “${reading.tokens[x].text}”.`;
  });

  aspect.addEventListener("change", drawMap);
  layers.addEventListener("change", () => choose(Number(layers.value), head));
  heads.addEventListener("change", () => choose(layer, Number(heads.value)));
  walk(row, (span) => show(Number(span.dataset.at)));

  const section = el("section", { class: "panel", id: "attention", "aria-label": "Attention" },
    el("h3", {}, "Attention"),
    el("p", { class: "lesson" }, "To understand a token, a model looks back at those before it; each head of each layer has learned to look for something else."),
    el("div", { class: "two" },
      el("div", {}, field("Colour the heads by how much they look at", aspect), grid, el("p", { class: "axis-note" }, "down: layers, from the first; across: heads"), reason),
      el("div", {}, el("div", { class: "pair" }, field("Layer", layers), field("Head", heads)), square,
        el("p", { class: "axis-note" }, "each row is a token, and shows which of those before it gets its attention"), said)),
    el("p", { class: "note" }, "Choose a token to see where this head looks from there."), row);

  const figure = (y, x) => {
    const value = reading.looks[y][x][Number(aspect.value)];
    return aspect.value === "0" ? `${short(value)} tokens back on average` : `${percent(value)} on ${ASPECTS.find(([place]) => place === aspect.value)[1]}`;
  };
  const of = (y, x) => weights.bytes[(head * weights.tokens + y) * weights.tokens + x] / 255;

  function drawMap() {
    const place = Number(aspect.value);
    const most = place ? 1 : Math.max(...reading.looks.flat().map((look) => look[0]), 1);
    grid.style.maxWidth = `min(100%, ${46 * reading.heads}px)`;
    map.show(reading.layers, reading.heads, (y, x) => reading.looks[y][x][place] / most, [layer, head]);
    grid.setAttribute("aria-label", `How much each of ${reading.heads} heads in ${reading.layers} layers looks at ${ASPECTS.find(([each]) => each === aspect.value)[1]}. The chosen one: ${figure(layer, head)}.`);
    reason.textContent = ASPECTS.find(([each]) => each === aspect.value)[2];
  }

  async function choose(y, x) {
    const turn = (asked += 1);
    [layer, head] = [y, x];
    layers.value = String(y);
    heads.value = String(x);
    drawMap();
    try {
      if (weights?.layer !== y) {
        const told = await ask("attention", { layer: y });
        if (turn !== asked) return;
        weights = { ...told, layer: y, bytes: Uint8Array.from(atob(told.weights), (each) => each.charCodeAt(0)) };
      }
      drawHead();
    } catch (problem) {
      notice(problem.message);
    }
  }

  function drawHead() {
    detail.show(weights.tokens, weights.tokens, (y, x) => (x > y ? null : Math.sqrt(of(y, x))), null);
    square.setAttribute("aria-label", `Attention of head ${head + 1} in layer ${layer + 1}, ${weights.tokens} tokens by ${weights.tokens}`);
    show(at);
  }

  function show(from) {
    at = Math.min(from, weights.tokens - 1);
    [...row.children].forEach((span, place) => {
      span.classList.toggle("after", place > at);
      span.setAttribute("aria-pressed", String(place === at));
      span.style.setProperty("--heat", place <= at ? of(at, place).toFixed(3) : "0");
    });
    const best = [...Array(at + 1).keys()].sort((a, b) => of(at, b) - of(at, a))[0];
    said.textContent = `From “${reading.tokens[at].text}” this head looks most at “${reading.tokens[best].text}” (${percent(of(at, best))}).`;
  }

  return {
    section,
    chosen(place) { if (weights) show(place); },
    async show(given) {
      reading = given;
      weights = null;
      at = given.tokens.length - 1;
      fill(row, given.tokens.map((it, place) => token(it.text, {
        special: it.special, first: place === 0, button: true, "data-at": String(place) })));
      const names = (count) => [...Array(count).keys()].map((each) => [String(each), String(each + 1)]);
      renew(layers, names(given.layers));
      renew(heads, names(given.heads));
      await choose(Math.min(layer, given.layers - 1), Math.min(head, given.heads - 1));
    },
  };
}
