// Report and Label X-ray: the pages that a run leaves, in place.
import { el, field, renew, select } from "./dom.js";
import { frame } from "./frame.js";
import { onChange, store } from "./store.js";

export function report(section) {
  const which = select([["", "no page yet"]]);
  const page = frame("The page");
  const nothing = el("p", { class: "empty" }, "No run has finished a stage here yet.");
  const whole = el("div", {}, el("div", { class: "inline" }, field("Page", which)), page.figure);
  section.append(
    el("h2", {}, "Report"),
    el("p", { class: "lead" }, "A run on one page: what it was made of, how it learned, what it can do. And the Label X-ray: token by token, what was trained."),
    nothing, whole);

  function choices() {
    const pages = store.home.runs.flatMap((run) => [
      ...(run.report ? [[`report/${run.name}`, `Report of ${run.name}`]] : []),
      ...run.stages.filter((stage) => stage.xray).map((stage) => [`xray/${stage.place}`, `Label X-ray of ${stage.place}`]),
    ]);
    nothing.hidden = pages.length > 0;
    whole.hidden = !pages.length;
    renew(which, pages.length ? pages : [["", "no page yet"]]);
    if (which.value) page.show(`/studio/page/${which.value}`);
  }

  which.addEventListener("change", choices);
  onChange(choices);
  choices();
  return {
    show(wanted) {
      if ([...which.options].some((option) => option.value === wanted)) which.value = wanted;
      choices();
    },
  };
}
