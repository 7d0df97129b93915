// Makes the page pleasant; without it all is there as well.

const chart = document.getElementById("chart");
const range = document.getElementById("range");
const span = document.getElementById("span");

// The fields for begin and end only matter when no range is chosen.
const showSpan = () => {
  span.hidden = range.value !== "";
  for (const input of span.querySelectorAll("input")) input.disabled = span.hidden;
};
range.addEventListener("change", showSpan);
showSpan();

// What is empty need not stand in the address.
document.querySelector("form").addEventListener("submit", (event) => {
  for (const input of event.target.elements) if (input.name && !input.value) input.disabled = true;
});
addEventListener("pageshow", (event) => event.persisted && location.reload());

if (chart) inspect(chart);

function inspect(chart) {
  const svg = chart.querySelector("svg");
  const cursor = document.getElementById("cursor");
  const readout = document.getElementById("readout");
  const usual = readout.textContent;
  const lines = JSON.parse(document.getElementById("data").textContent);
  const times = [...new Set(lines.flatMap((line) => line.points.map(([at]) => at)))].sort((a, b) => a - b);
  if (!times.length) return;
  const values = lines.map((line) => new Map(line.points));
  const [left, right] = edges();
  const [start, end] = [...document.querySelectorAll(".figures time")].map((time) => Date.parse(time.dateTime) / 1000);
  const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  let place = null;

  function edges() {
    const [, from, to] = svg.querySelector(".grid path").getAttribute("d").match(/^M([\d.]+) .*H([\d.]+)/);
    return [Number(from), Number(to)];
  }

  function show(index) {
    place = Math.min(Math.max(index, 0), times.length - 1);
    const at = times[place];
    const x = left + ((at - start) / (end - start)) * (right - left);
    cursor.setAttribute("transform", `translate(${x})`);
    cursor.setAttribute("visibility", "visible");
    const found = lines.map((line, number) => [line.name, values[number].get(at)]);
    const told = found.filter(([, value]) => value !== undefined).map(([name, value]) => `${name} ${value.toFixed(1)} %`);
    readout.textContent = `${clock.format(at * 1000)} here: ${told.join(" · ")}`;
  }

  function hide() {
    place = null;
    cursor.setAttribute("visibility", "hidden");
    readout.textContent = usual;
  }

  function nearest(at) {
    let best = 0;
    times.forEach((time, index) => {
      if (Math.abs(time - at) < Math.abs(times[best] - at)) best = index;
    });
    return best;
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    show(nearest(start + ((x - left) / (right - left)) * (end - start)));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);

  // With the keyboard: the chart takes the focus, arrows go from value to value.
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("focus", () => place ?? show(times.length - 1));
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -times.length, End: times.length };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    show((place ?? times.length) + steps[event.key]);
  });

  // A row of the table brings its line to the front.
  for (const row of document.querySelectorAll("tr[data-line]")) {
    const line = svg.querySelector(`path[data-line="${row.dataset.line}"]`);
    const choose = (on) => {
      chart.classList.toggle("one", on);
      line.classList.toggle("chosen", on);
    };
    row.addEventListener("pointerenter", () => choose(true));
    row.addEventListener("pointerleave", () => choose(false));
    row.addEventListener("focusin", () => choose(true));
    row.addEventListener("focusout", () => choose(false));
  }
}
