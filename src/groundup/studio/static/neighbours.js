// Neighbours: which tokens a model has learned to treat alike.
import { el, fill, notice, seen } from "./dom.js";

export function neighboursPanel(ask) {
  let reading = null;
  let asked = 0;
  const title = el("p", { class: "note", "aria-live": "polite" });
  const list = el("ol", { class: "shares wide-shares" });
  const section = el("section", { class: "panel", id: "neighbours", "aria-label": "Embeddings" },
    el("h3", {}, "Embeddings"),
    el("p", { class: "lesson" }, "A model knows a token as a point in space; tokens that are used alike end up near each other, though nobody told it so."),
    title, list);

  async function show(at) {
    const turn = (asked += 1);
    const it = reading.tokens[at];
    try {
      const told = await ask("neighbours", { token: it.id });
      if (turn !== asked) return;
      title.textContent = `Nearest to “${seen(it.text)}”, by the cosine between their embeddings. Choose another token above.`;
      fill(list, told.neighbours.map((other) => el("li", {},
        el("code", {}, seen(other.text)),
        el("span", { class: "share", vars: { "--share": Math.max(0, other.cosine).toFixed(4) } }),
        el("span", { class: "value" }, other.cosine.toFixed(2)))));
    } catch (problem) {
      notice(problem.message);
    }
  }

  return {
    section,
    chosen: show,
    async show(given) {
      reading = given;
      const words = given.tokens.map((it, at) => [it, at]).filter(([it]) => !it.special && it.text.trim().length > 2);
      await show(words.length ? words[Math.min(1, words.length - 1)][1] : Math.min(1, given.tokens.length - 1));
    },
  };
}
