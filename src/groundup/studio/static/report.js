// The Report view, which shows reports of runs and the tokenized examples of fine-tuning stages.
import { el, field, select, updateOptions } from "./dom.js";
import { frame } from "./frame.js";
import { onChange, store } from "./store.js";

export function report(section) {
  const picker = select([["", "No reports found"]]);
  const page = frame("Report");
  const empty = el("p", { class: "empty" }, "No reports found. Start a recipe in Train; a report appears when its first stage is done.");
  const content = el("div", {}, el("div", { class: "inline" }, field("Page", picker)), page.figure);
  section.append(
    el("h2", {}, "Report"),
    el("p", { class: "lead" }, "One page per run: its data, training, results and cost. The tokenized examples of a fine-tuning stage show which tokens the loss includes."),
    empty, content);

  function draw() {
    const pages = store.overview.runs.flatMap((run) => [
      ...(run.has_report ? [[`report/${run.name}`, `Report of ${run.name}`]] : []),
      ...run.stages.filter((stage) => stage.has_tokens_page).map((stage) => [`tokens/${stage.id}`, `Tokenized examples of ${stage.id}`]),
    ]);
    empty.hidden = pages.length > 0;
    content.hidden = !pages.length;
    updateOptions(picker, pages.length ? pages : [["", "No reports found"]]);
    if (picker.value) page.show(`/studio/page/${picker.value}`);
  }

  picker.addEventListener("change", draw);
  onChange(draw);
  draw();
  return {
    show(detail) {
      if ([...picker.options].some((option) => option.value === detail)) picker.value = detail;
      draw();
    },
  };
}
