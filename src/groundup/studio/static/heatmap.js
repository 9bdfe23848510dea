// Heatmaps of numbers from 0 to 1 in the colors of the page. A heatmap is redrawn when the color scheme changes.
const dark = matchMedia("(prefers-color-scheme: dark)");
const redraws = new Set();
dark.addEventListener("change", () => redraws.forEach((draw) => draw()));

function rgb(color) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = color;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}

export class Heatmap {
  // onPoint(row, column, pressed) is called when the pointer moves over a cell or when the user presses a cell.
  // `aspect` is the width of a cell divided by its height.
  constructor(canvas, onPoint = null, aspect = 1) {
    Object.assign(this, { canvas, aspect });
    this.draw = () => this.#draw();
    redraws.add(this.draw);
    if (!onPoint) return;
    const cellAt = (event) => {
      const box = canvas.getBoundingClientRect();
      const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
      const column = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
      return [Math.max(0, Math.min(this.rows - 1, row)), Math.max(0, Math.min(this.columns - 1, column))];
    };
    canvas.addEventListener("pointermove", (event) => this.rows && onPoint(...cellAt(event), false));
    canvas.addEventListener("click", (event) => this.rows && onPoint(...cellAt(event), true));
  }

  // `values` maps (row, column) to a number from 0 to 1, or to null if the cell is empty. `selected` is the [row,
  // column]
// of the cell that has a frame.
  show(rows, columns, values, selected = null) {
    Object.assign(this, { rows, columns, values, selected });
    this.#draw();
  }

  #draw() {
    if (!this.rows) return;
    const style = getComputedStyle(this.canvas);
    const [low, high, ink] = ["--track", "--accent", "--ink"].map((name) => rgb(style.getPropertyValue(name)));
    const height = Math.max(1, Math.min(24, Math.floor(1024 / Math.max(this.rows, this.columns))));
    const width = height * this.aspect;
    const gap = height > 6;
    this.canvas.width = this.columns * width;
    this.canvas.height = this.rows * height;
    const context = this.canvas.getContext("2d");
    for (let row = 0; row < this.rows; row += 1) {
      for (let column = 0; column < this.columns; column += 1) {
        const value = this.values(row, column);
        if (value === null) continue;
        const mixed = [0, 1, 2].map((channel) => Math.round(low[channel] + (high[channel] - low[channel]) * Math.max(0, Math.min(1, value))));
        context.fillStyle = `rgb(${mixed.join(" ")})`;
        context.fillRect(column * width, row * height, width - gap, height - gap);
      }
    }
    if (!this.selected) return;
    context.strokeStyle = `rgb(${[...ink].slice(0, 3).join(" ")})`;
    context.lineWidth = Math.max(2, height / 8);
    const [row, column] = this.selected;
    context.strokeRect(column * width, row * height, width - 1, height - 1);
  }
}
