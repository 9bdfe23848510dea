// What the pointer is over, in a line chart: the nearest point's figures, beside a hair line. The page reads without it.
for (const chart of document.querySelectorAll("svg[data-points]")) {
  const points = chart.dataset.points.split(";").map((item) => {
    const at = item.indexOf(",");
    return [Number(item.slice(0, at)), item.slice(at + 1)];
  });
  const hair = chart.querySelector(".hair");
  const reading = document.getElementById("reading");
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = (100 * (event.clientX - box.left)) / box.width;
    const [nearest, told] = points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    hair.setAttribute("x1", nearest + "%");
    hair.setAttribute("x2", nearest + "%");
    hair.classList.add("on");
    reading.textContent = told;
    reading.hidden = false;
  });
  chart.addEventListener("pointerleave", () => {
    hair.classList.remove("on");
    reading.hidden = true;
  });
}
