// If the pointer is over a line chart, show the value of the nearest point. The page is also readable without this
// script.
for (const chart of document.querySelectorAll("svg[data-points]")) {
  const points = chart.dataset.points.split(";").map((item) => {
    const comma = item.indexOf(",");
    return [Number(item.slice(0, comma)), item.slice(comma + 1)];
  });
  const cursor = chart.querySelector(".cursor");
  const reading = document.getElementById("reading");
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const x = (100 * (event.clientX - box.left)) / box.width;
    const [nearest, label] = points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
    cursor.setAttribute("x1", nearest + "%");
    cursor.setAttribute("x2", nearest + "%");
    cursor.classList.add("on");
    reading.textContent = label;
    reading.hidden = false;
  });
  chart.addEventListener("pointerleave", () => {
    cursor.classList.remove("on");
    reading.hidden = true;
  });
}
