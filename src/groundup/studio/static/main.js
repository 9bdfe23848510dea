// The navigation of the page: the views, the model selection and the pipeline.
import { apps } from "./apps.js";
import { chat } from "./chat.js";
import { data } from "./data.js";
import { documents } from "./documents.js";
import { el, fill, hashLink, notice, updateOptions } from "./dom.js";
import { inside } from "./inside.js";
import { drawPipeline } from "./pipeline.js";
import { report } from "./report.js";
import { languageModels, onChange, refresh, selectModel, store } from "./store.js";
import { train } from "./train.js";

const VIEWS = { chat, apps, documents, inside, train, data, report };
const TITLES = { chat: "Chat", apps: "Apps", documents: "Documents", inside: "Inside", train: "Train", data: "Data", report: "Report" };

const main = document.getElementById("view");
const tabs = document.getElementById("tabs");
const picker = document.getElementById("model");
const views = {}; // a view is created when it is first shown

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch { // A hash that the user typed may not be valid; use it as it is.
    return part;
  }
}

// The hash of the URL contains the view and the item that it shows, so that the back button works. Examples are
// #/inside and #/report/tokens/tiny/chat.
function currentView() {
  const [name, ...detail] = location.hash.slice(2).split("/").map(decoded);
  return name in VIEWS ? [name, detail.join("/")] : ["chat", ""];
}

function show() {
  const [name, detail] = currentView();
  for (const link of tabs.querySelectorAll("a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!views[name]) {
    const section = el("section", { id: `view-${name}`, "aria-label": TITLES[name] });
    views[name] = { section, ...VIEWS[name](section) };
    main.append(section);
  }
  for (const [other, { section, hide }] of Object.entries(views)) {
    section.hidden = other !== name;
    if (other !== name) hide?.();
  }
  document.title = `${TITLES[name]} · groundup Studio`;
  views[name].show?.(detail);
}

function draw() {
  const models = languageModels();
  picker.disabled = !models.length;
  updateOptions(picker, models.length
    ? models.map((model) => [model.name, model.step === null ? model.name : `${model.name} (in training, step ${model.step})`])
    : [["", "No models found"]]);
  picker.value = store.model || "";
  drawPipeline(document.getElementById("pipeline"));
  views[currentView()[0]]?.changed?.();
}

fill(tabs, el("ul", {}, Object.keys(VIEWS).map((name) =>
  el("li", {}, el("a", { href: hashLink(name), "data-view": name }, TITLES[name])))));
picker.addEventListener("change", () => selectModel(picker.value));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", show);
onChange(draw);
refresh().then(show, (error) => notice(error.message));
