// Data: what a corpus is made of, what was dropped and why, and where a string came from.
import { get } from "./api.js";
import { during, el, field, fill, renew, select } from "./dom.js";
import { frame } from "./frame.js";
import { onChange, store } from "./store.js";

export function data(section) {
  const corpus = select([["", "no corpus yet"]]);
  const text = el("input", { type: "search", required: true, placeholder: "to be, or not to be" });
  const kind = select([["search", "documents that have it"], ["fates", "what became of a document called so"]]);
  const find = el("button", { type: "submit", class: "main" }, "Search");
  const found = el("div", { class: "found", "aria-live": "polite" });
  const card = frame("The data card");
  const nothing = el("p", { class: "empty" }, "No corpus has been collected here yet.");
  const form = el("form", { class: "inline", on: { submit: (event) => { event.preventDefault(); look(); } } },
    field("Corpus", corpus), field("Look for", text), field("Show", kind), find);
  const whole = el("div", {}, form, found, card.figure);

  section.append(
    el("h2", {}, "Data"),
    el("p", { class: "lead" }, "A model knows what it has read. Here is what that was: where it comes from, what was left out and why."),
    nothing, whole);

  const look = () => during(find, async () => {
    const told = await get(`/studio/api/${kind.value}`, { place: corpus.value, text: text.value });
    const rows = kind.value === "search" ? told.matches.map(match) : told.fates.map(fate);
    fill(found,
      el("p", { class: "note" }, rows.length ? `${told.more ? "The first " : ""}${rows.length} ${rows.length === 1 ? "document" : "documents"}` : "In no document."),
      el("ol", { class: "results" }, rows));
  });

  const match = ({ document, around: [before, hit, after] }) => el("li", {},
    el("p", { class: "who" }, `${document.origin} · ${document.source}`),
    el("p", { class: "written", dir: "auto" }, "…", before, el("mark", {}, hit), after, "…"));

  const fate = (each) => el("li", {},
    el("p", { class: "who" }, `${each.origin} · ${each.source}`),
    el("p", {}, each.is_kept ? "kept" : `dropped: ${each.reason}${each.detail ? ` (${each.detail})` : ""}, at the step ${each.step}`),
    el("p", { class: "written", dir: "auto" }, each.beginning));

  function choices() {
    const places = store.home.runs.flatMap((run) => run.stages.filter((stage) => stage.stage === "collect" && stage.state === "done"));
    nothing.hidden = places.length > 0;
    whole.hidden = !places.length;
    renew(corpus, places.length ? places.map((stage) => [stage.place, stage.place]) : [["", "no corpus yet"]]);
    if (corpus.value) card.show(`/studio/page/card/${corpus.value}`);
  }

  corpus.addEventListener("change", () => { fill(found); choices(); });
  onChange(choices);
  choices();
  return {
    show(wanted) {
      if ([...corpus.options].some((option) => option.value === wanted)) corpus.value = wanted;
      choices();
    },
  };
}
