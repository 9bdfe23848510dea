// Line charts: as wide as their place, read with the pointer or with the arrow keys.
import { el, fill, short, svg } from "./dom.js";

const HEIGHT = 220;
const MARGIN = { top: 12, right: 14, bottom: 24, left: 48 };

function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * size).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

// Means of neighbours, as many as the chart has room for.
function thinned(points, room) {
  const stride = Math.ceil(points.length / room);
  if (stride <= 1) return points;
  const found = [];
  for (let at = 0; at < points.length; at += stride) {
    const group = points.slice(at, at + stride);
    found.push([group.at(-1)[0], group.reduce((sum, point) => sum + point[1], 0) / group.length]);
  }
  return found;
}

// A running mean over 2 % of the points on either side, as the report draws it.
export function smooth(points) {
  const reach = Math.round(0.02 * points.length);
  const sums = [0];
  for (const [, y] of points) sums.push(sums.at(-1) + y);
  return points.map(([x], at) => {
    const back = Math.min(reach, at);
    const end = Math.min(points.length, at + back + 1);
    return [x, (sums[end] - sums[at - back]) / (end - at + back)];
  });
}

// lines: [{ name, points: [[x, y]], soft }]; the first that is not soft is the one that the chart is about.
export class Plot {
  constructor(title, { unit = "", across = "tokens", format = short, zero = false } = {}) {
    Object.assign(this, { title, unit, across, format, zero, lines: [] });
    this.frame = el("div", { class: "plot", tabIndex: 0, role: "group", "aria-label": `${title}: arrow keys read it` });
    this.reading = el("p", { class: "reading", "aria-live": "polite" });
    this.legend = el("p", { class: "legend" });
    this.units = el("span", {}, unit);
    this.figure = el("figure", { class: "chart" },
      el("figcaption", {}, el("strong", {}, title), this.units), this.legend, this.frame, this.reading);
    this.at = null;
    this.held = ""; // which lines
    this.drawn = ""; // which of them, and how wide
    this.frame.addEventListener("pointermove", (event) => this.#point(event));
    this.frame.addEventListener("pointerleave", () => this.#read(null));
    this.frame.addEventListener("blur", () => this.#read(null));
    this.frame.addEventListener("keydown", (event) => this.#walk(event));
    new ResizeObserver(() => this.#draw()).observe(this.frame);
  }

  // What is counted may differ from run to run: tokens, or texts.
  measured(unit, across) {
    if (this.unit === unit && this.across === across) return;
    Object.assign(this, { unit, across });
    this.units.textContent = unit;
    this.drawn = "";
    this.#draw();
  }

  show(lines) {
    // Runs grow at their end: where that is the same, so is all else.
    const held = JSON.stringify(lines.map(({ name, points }) => [name, points.length, points[0], points.at(-1)]));
    if (held === this.held) return;
    this.held = held;
    this.lines = lines.filter((line) => line.points.length);
    this.figure.hidden = !this.lines.length;
    const named = this.lines.filter((line) => !line.soft);
    fill(this.legend, named.length > 1 ? named.map((line, at) => el("span", { class: `key k${at % 4}` }, line.name)) : []);
    this.#draw();
  }

  #draw() {
    const width = this.frame.clientWidth;
    if (!width || !this.lines.length || this.drawn === `${width} ${this.held}`) return;
    this.drawn = `${width} ${this.held}`;
    const all = this.lines.flatMap((line) => line.points);
    const xs = all.map((point) => point[0]);
    const ys = all.map((point) => point[1]).sort((a, b) => a - b);
    // The first steps of a loss may be far above all others: they may leave the picture.
    let [low, high] = [ys[0], ys[Math.ceil((ys.length - 1) * (ys.length > 40 ? 0.985 : 1))]];
    if (this.zero) low = Math.min(0, low);
    if (low === high) [low, high] = [low - Math.abs(low) / 10 - 1e-9, high + Math.abs(high) / 10 + 1e-9];
    const [left, right] = [xs.reduce((a, b) => Math.min(a, b)), xs.reduce((a, b) => Math.max(a, b))];
    const inner = width - MARGIN.left - MARGIN.right;
    this.x = (value) => MARGIN.left + (right === left ? inner / 2 : ((value - left) / (right - left)) * inner);
    this.y = (value) => MARGIN.top + (1 - (Math.min(high, value) - low) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const grid = ticks(low, high, 4).map((at) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(at), y2: this.y(at) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: this.y(at) + 4, "text-anchor": "end" }, this.format(at))]);
    const foot = ticks(left, right, Math.max(4, Math.floor(inner / 110))).map((at) =>
      svg("text", { class: "tick", x: this.x(at), y: HEIGHT - 6, "text-anchor": at === left ? "start" : "middle" }, short(at)));
    let hard = 0;
    const drawn = this.lines.map((line) => {
      const points = thinned(line.points, inner).map(([x, y]) => `${this.x(x).toFixed(1)},${this.y(y).toFixed(1)}`).join(" ");
      const kind = line.soft ? "line soft" : `line k${hard++ % 4}`;
      const last = line.points.at(-1);
      const dot = line.points.length === 1 || line.dots;
      return [svg("polyline", { class: kind, points }),
        dot && line.points.map(([x, y]) => svg("circle", { class: kind.replace("line", "dot"), cx: this.x(x), cy: this.y(y), r: 3.5 })),
        !line.soft && svg("circle", { class: kind.replace("line", "dot"), cx: this.x(last[0]), cy: this.y(last[1]), r: 3.5 })].flat();
    });
    this.hair = svg("line", { class: "hair", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    fill(this.frame, svg("svg", { width, height: HEIGHT, role: "img", "aria-label": this.#told() }, grid, foot, drawn, this.hair));
    this.reading.textContent ||= "\u00a0";
  }

  #main() {
    return this.lines.find((line) => !line.soft);
  }

  #told() {
    const { points } = this.#main();
    return `${this.title}: from ${this.format(points[0][1])} to ${this.format(points.at(-1)[1])} ${this.unit}, over ${short(points.at(-1)[0])} ${this.across}`;
  }

  #point(event) {
    if (!this.x || !this.lines.length) return;
    const x = event.clientX - this.frame.getBoundingClientRect().left;
    const { points } = this.#main();
    let best = 0;
    points.forEach((point, at) => { if (Math.abs(this.x(point[0]) - x) < Math.abs(this.x(points[best][0]) - x)) best = at; });
    this.#read(best);
  }

  #walk(event) {
    const { length } = this.#main()?.points || [];
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -Math.ceil(length / 10), PageDown: Math.ceil(length / 10), Home: -length, End: length }[event.key];
    if (!step || !length) return;
    event.preventDefault();
    this.#read(Math.max(0, Math.min(length - 1, (this.at ?? length - 1) + step)));
  }

  #read(at) {
    this.at = at;
    if (at === null || !this.hair) {
      this.hair?.setAttribute("visibility", "hidden");
      this.reading.textContent = "\u00a0";
      return;
    }
    const [x] = this.#main().points[at];
    const told = this.lines.filter((line) => !line.soft).map((line) => {
      const near = line.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      return `${this.lines.length > 2 ? `${line.name} ` : ""}${this.format(near[1])} ${this.unit}`;
    });
    this.hair.setAttribute("x1", this.x(x));
    this.hair.setAttribute("x2", this.x(x));
    this.hair.setAttribute("visibility", "visible");
    this.reading.textContent = `${short(x)} ${this.across}: ${told.join(" · ")}`;
  }
}
