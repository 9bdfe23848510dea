// Line charts that are as wide as their container. Users read values with the pointer or the arrow keys.
import { el, fill, formatNumber, svg } from "./dom.js";

const HEIGHT = 220;
const MARGIN = { top: 12, right: 14, bottom: 24, left: 48 };

function ticks(low, high, maxCount) {
  const rough = (high - low) / maxCount || 1;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * size).find((each) => each >= rough);
  const values = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) values.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return values;
}

// Downsample a curve to at most `maxPoints` points by averaging adjacent points.
function thinned(points, maxPoints) {
  const stride = Math.ceil(points.length / maxPoints);
  if (stride <= 1) return points;
  const means = [];
  for (let start = 0; start < points.length; start += stride) {
    const group = points.slice(start, start + stride);
    means.push([group.at(-1)[0], group.reduce((sum, point) => sum + point[1], 0) / group.length]);
  }
  return means;
}

// Return the moving average over 2 % of the points on each side, as in the report.
export function smooth(points) {
  const radius = Math.round(0.02 * points.length);
  const sums = [0];
  for (const [, y] of points) sums.push(sums.at(-1) + y);
  return points.map(([x], index) => {
    const back = Math.min(radius, index);
    const end = Math.min(points.length, index + back + 1);
    return [x, (sums[end] - sums[index - back]) / (end - index + back)];
  });
}

// `lines` is a list of { name, points: [[x, y]], raw, dots }. A raw line is gray and has no legend entry. The first
// other line is the main line, whose points users can read with the keyboard.
export class Plot {
  constructor(title, { unit = "", xLabel = "tokens", format = formatNumber, fromZero = false } = {}) {
    Object.assign(this, { title, unit, xLabel, format, fromZero, lines: [] });
    this.frame = el("div", { class: "plot", tabIndex: 0, role: "group", "aria-label": `${title}: read values with the arrow keys` });
    this.reading = el("p", { class: "reading", "aria-live": "polite" });
    this.legend = el("p", { class: "legend" });
    this.units = el("span", {}, unit);
    this.figure = el("figure", { class: "chart" },
      el("figcaption", {}, el("strong", {}, title), this.units), this.legend, this.frame, this.reading);
    this.index = null; // the point whose value is shown
    this.version = ""; // the version identifies the lines that are shown
    this.drawn = ""; // the width and the version of the lines when the chart was last drawn
    this.frame.addEventListener("pointermove", (event) => this.#onPointer(event));
    this.frame.addEventListener("pointerleave", () => this.#read(null));
    this.frame.addEventListener("blur", () => this.#read(null));
    this.frame.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.#draw()).observe(this.frame);
  }

  // The units differ between runs: most runs count tokens, but the training of a classifier counts texts.
  setUnits(unit, xLabel) {
    if (this.unit === unit && this.xLabel === xLabel) return;
    Object.assign(this, { unit, xLabel });
    this.units.textContent = unit;
    this.drawn = "";
    this.#draw();
  }

  show(lines) {
    // Lines grow only at their end, so their length and their end points identify a version.
    const version = JSON.stringify(lines.map(({ name, points }) => [name, points.length, points[0], points.at(-1)]));
    if (version === this.version) return;
    this.version = version;
    this.lines = lines.filter((line) => line.points.length);
    this.figure.hidden = !this.lines.length;
    const named = this.lines.filter((line) => !line.raw);
    fill(this.legend, named.length > 1 ? named.map((line, index) => el("span", { class: `key k${index % 4}` }, line.name)) : []);
    this.#draw();
  }

  #draw() {
    const width = this.frame.clientWidth;
    if (!width || !this.lines.length || this.drawn === `${width} ${this.version}`) return;
    this.drawn = `${width} ${this.version}`;
    const all = this.lines.flatMap((line) => line.points);
    const xs = all.map((point) => point[0]);
    const ys = all.map((point) => point[1]).sort((a, b) => a - b);
    // The first losses are much higher than later losses, so clip the highest 1.5 % of the values of a long curve.
    let [low, high] = [ys[0], ys[Math.ceil((ys.length - 1) * (ys.length > 40 ? 0.985 : 1))]];
    if (this.fromZero) low = Math.min(0, low);
    if (low === high) [low, high] = [low - Math.abs(low) / 10 - 1e-9, high + Math.abs(high) / 10 + 1e-9];
    const [left, right] = [xs.reduce((a, b) => Math.min(a, b)), xs.reduce((a, b) => Math.max(a, b))];
    const inner = width - MARGIN.left - MARGIN.right;
    this.x = (value) => MARGIN.left + (right === left ? inner / 2 : ((value - left) / (right - left)) * inner);
    this.y = (value) => MARGIN.top + (1 - (Math.min(high, value) - low) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const grid = ticks(low, high, 4).map((at) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(at), y2: this.y(at) }),
      svg("text", { class: "tick", x: MARGIN.left - 8, y: this.y(at) + 4, "text-anchor": "end" }, this.format(at))]);
    const xTicks = ticks(left, right, Math.max(4, Math.floor(inner / 110))).map((at) =>
      svg("text", { class: "tick", x: this.x(at), y: HEIGHT - 6, "text-anchor": at === left ? "start" : "middle" }, formatNumber(at)));
    let colors = 0;
    const drawn = this.lines.map((line) => {
      const points = thinned(line.points, inner).map(([x, y]) => `${this.x(x).toFixed(1)},${this.y(y).toFixed(1)}`).join(" ");
      const kind = line.raw ? "line raw" : `line k${colors++ % 4}`;
      const last = line.points.at(-1);
      const dots = line.points.length === 1 || line.dots;
      return [svg("polyline", { class: kind, points }),
        dots && line.points.map(([x, y]) => svg("circle", { class: kind.replace("line", "dot"), cx: this.x(x), cy: this.y(y), r: 3.5 })),
        !line.raw && svg("circle", { class: kind.replace("line", "dot"), cx: this.x(last[0]), cy: this.y(last[1]), r: 3.5 })].flat();
    });
    this.cursor = svg("line", { class: "cursor", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    fill(this.frame, svg("svg", { width, height: HEIGHT, role: "img", "aria-label": this.#summary() }, grid, xTicks, drawn, this.cursor));
    this.reading.textContent ||= "\u00a0";
  }

  #main() {
    return this.lines.find((line) => !line.raw);
  }

  #summary() {
    const { points } = this.#main();
    return `${this.title}: from ${this.format(points[0][1])} to ${this.format(points.at(-1)[1])} ${this.unit}, over ${formatNumber(points.at(-1)[0])} ${this.xLabel}`;
  }

  #onPointer(event) {
    if (!this.x || !this.lines.length) return;
    const x = event.clientX - this.frame.getBoundingClientRect().left;
    const { points } = this.#main();
    let nearest = 0;
    points.forEach((point, index) => { if (Math.abs(this.x(point[0]) - x) < Math.abs(this.x(points[nearest][0]) - x)) nearest = index; });
    this.#read(nearest);
  }

  #onKey(event) {
    const { length } = this.#main()?.points || [];
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -Math.ceil(length / 10), PageDown: Math.ceil(length / 10), Home: -length, End: length }[event.key];
    if (!step || !length) return;
    event.preventDefault();
    this.#read(Math.max(0, Math.min(length - 1, (this.index ?? length - 1) + step)));
  }

  #read(index) {
    this.index = index;
    if (index === null || !this.cursor) {
      this.cursor?.setAttribute("visibility", "hidden");
      this.reading.textContent = "\u00a0";
      return;
    }
    const [x] = this.#main().points[index];
    const values = this.lines.filter((line) => !line.raw).map((line) => {
      const nearest = line.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      return `${this.lines.length > 2 ? `${line.name} ` : ""}${this.format(nearest[1])} ${this.unit}`;
    });
    this.cursor.setAttribute("x1", this.x(x));
    this.cursor.setAttribute("x2", this.x(x));
    this.cursor.setAttribute("visibility", "visible");
    this.reading.textContent = `${formatNumber(x)} ${this.xLabel}: ${values.join(" · ")}`;
  }
}
