// Shows every chart's value at the step under the pointer.
const charts = [...document.querySelectorAll(".chart")].map((figure) => {
  const svg = figure.querySelector("svg");
  const output = figure.querySelector("output");
  return {
    svg,
    output,
    places: JSON.parse(figure.dataset.hover),
    pointer: svg.querySelector(".pointer"),
    last: output.textContent,
  };
});

function nearest(places, step) {
  let best = places[0];
  for (const place of places) {
    if (Math.abs(place[0] - step) < Math.abs(best[0] - step)) best = place;
  }
  return best;
}

function show(step) {
  for (const chart of charts) {
    const [at, x, y, text] = nearest(chart.places, step);
    const [line, dot] = chart.pointer.children;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    chart.pointer.removeAttribute("hidden");
    chart.output.textContent = `step ${at}: ${text}`;
  }
}

function hide() {
  for (const chart of charts) {
    chart.pointer.setAttribute("hidden", "");
    chart.output.textContent = chart.last;
  }
}

for (const chart of charts.filter((each) => each.places.length)) {
  chart.svg.addEventListener("pointermove", (event) => {
    const box = chart.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * chart.svg.viewBox.baseVal.width;
    const place = chart.places.reduce((a, b) => (Math.abs(b[1] - x) < Math.abs(a[1] - x) ? b : a));
    show(place[0]);
  });
  chart.svg.addEventListener("pointerleave", hide);
}
