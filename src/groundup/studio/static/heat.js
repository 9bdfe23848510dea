// Pictures of numbers between 0 and 1, drawn in the colours of the page; again when those change.
const dark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Set();
dark.addEventListener("change", () => drawn.forEach((draw) => draw()));

function rgb(value) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = value;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}

export class Heat {
  // onPoint(row, column) when the pointer is over a cell or, with `true`, presses it.
  // wide: how many times wider than high a cell is.
  constructor(canvas, onPoint = null, wide = 1) {
    Object.assign(this, { canvas, wide });
    this.draw = () => this.#draw();
    drawn.add(this.draw);
    if (!onPoint) return;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
      const column = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
      return [Math.max(0, Math.min(this.rows - 1, row)), Math.max(0, Math.min(this.columns - 1, column))];
    };
    canvas.addEventListener("pointermove", (event) => this.rows && onPoint(...at(event), false));
    canvas.addEventListener("click", (event) => this.rows && onPoint(...at(event), true));
  }

  // values: (row, column) -> 0 to 1, or null for nothing; marked: [row, column] that is framed.
  show(rows, columns, values, marked = null) {
    Object.assign(this, { rows, columns, values, marked });
    this.#draw();
  }

  #draw() {
    if (!this.rows) return;
    const style = getComputedStyle(this.canvas);
    const [low, high, ink] = ["--track", "--accent", "--ink"].map((name) => rgb(style.getPropertyValue(name)));
    const scale = Math.max(1, Math.min(24, Math.floor(1024 / Math.max(this.rows, this.columns))));
    const across = scale * this.wide;
    this.canvas.width = this.columns * across;
    this.canvas.height = this.rows * scale;
    const context = this.canvas.getContext("2d");
    for (let row = 0; row < this.rows; row += 1) {
      for (let column = 0; column < this.columns; column += 1) {
        const value = this.values(row, column);
        if (value === null) continue;
        const mixed = [0, 1, 2].map((at) => Math.round(low[at] + (high[at] - low[at]) * Math.max(0, Math.min(1, value))));
        context.fillStyle = `rgb(${mixed.join(" ")})`;
        context.fillRect(column * across, row * scale, across - (scale > 6), scale - (scale > 6));
      }
    }
    if (!this.marked) return;
    context.strokeStyle = `rgb(${[...ink].slice(0, 3).join(" ")})`;
    context.lineWidth = Math.max(2, scale / 8);
    const [row, column] = this.marked;
    context.strokeRect(column * across, row * scale, across - 1, scale - 1);
  }
}
