// Shows a report in a sandboxed frame. The report cannot access this page.
import { el } from "./dom.js";

export function frame(title) {
  const inner = el("iframe", { title, sandbox: "allow-scripts", referrerpolicy: "no-referrer" });
  const link = el("a", { target: "_blank", rel: "noopener" }, `Open the ${title.toLowerCase()} in a new tab`);
  const figure = el("div", { class: "framed", hidden: true }, inner, el("p", { class: "note" }, link));
  return {
    figure,
    show(path) {
      const encoded = path.split("/").map(encodeURIComponent).join("/");
      figure.hidden = false;
      if (inner.getAttribute("src") === encoded) return;
      inner.setAttribute("src", encoded);
      link.setAttribute("href", encoded);
    },
  };
}
