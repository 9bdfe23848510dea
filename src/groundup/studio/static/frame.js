// A whole page of its own in a frame that can reach nothing of this one.
import { el } from "./dom.js";

export function frame(title) {
  const inner = el("iframe", { title, sandbox: "allow-scripts", referrerpolicy: "no-referrer" });
  const link = el("a", { target: "_blank", rel: "noopener" }, `${title}, in a window of its own`);
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
