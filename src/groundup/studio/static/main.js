// The frame of the page: which view is shown, which model is meant, where on the road it is.
import { apps } from "./apps.js";
import { chat } from "./chat.js";
import { data } from "./data.js";
import { el, fill, notice, renew, to } from "./dom.js";
import { inside } from "./inside.js";
import { report } from "./report.js";
import { drawRoad } from "./road.js";
import { choose, onChange, refresh, store } from "./store.js";
import { train } from "./train.js";

const VIEWS = { chat, apps, inside, train, data, report };
const TITLES = { chat: "Chat", apps: "Apps", inside: "Inside", train: "Train", data: "Data", report: "Report" };

const view = document.getElementById("view");
const tabs = document.getElementById("tabs");
const picker = document.getElementById("model");
const built = {};

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch { // typed by hand
    return part;
  }
}

// The hash says it all, so that "back" goes back: #/inside, #/report/xray/tiny/chat.
function place() {
  const [name, ...rest] = location.hash.slice(2).split("/").map(decoded);
  return name in VIEWS ? [name, rest.join("/")] : ["chat", ""];
}

function show() {
  const [name, detail] = place();
  for (const link of tabs.querySelectorAll("a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!built[name]) {
    const section = el("section", { id: `view-${name}`, "aria-label": TITLES[name] });
    built[name] = { section, ...VIEWS[name](section) };
    view.append(section);
  }
  for (const [other, { section, rest }] of Object.entries(built)) {
    section.hidden = other !== name;
    if (other !== name) rest?.();
  }
  document.title = `${TITLES[name]} · groundup Studio`;
  built[name].show?.(detail);
}

function draw() {
  const models = store.home.models.filter((model) => model.kind !== "classifier");
  picker.disabled = !models.length;
  renew(picker, models.length
    ? models.map((model) => [model.name, model.step === null ? model.name : `${model.name} (in training, step ${model.step})`])
    : [["", "no model yet"]]);
  picker.value = store.model || "";
  drawRoad(document.getElementById("road"));
  built[place()[0]]?.changed?.();
}

fill(tabs, el("ul", {}, Object.keys(VIEWS).map((name) =>
  el("li", {}, el("a", { href: to(name), "data-view": name }, TITLES[name])))));
picker.addEventListener("change", () => choose(picker.value));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  view.focus();
});
addEventListener("hashchange", show);
onChange(draw);
refresh().then(show, (problem) => notice(problem.message));
