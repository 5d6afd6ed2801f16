// Curves that say their values where the pointer is; a click leads to the groups of that step.

/** The entry of ascending numbers that is nearest to one. */
function nearestStep(steps, step) {
  return steps.reduce((best, other) => (Math.abs(other - step) < Math.abs(best - step) ? other : best), steps[0]);
}

function shortNumber(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

const figures = [...document.querySelectorAll(".diagram")];

/** The step below the pointer, which may be before the first or after the last. */
function stepBelow(svg, event, { left, right, last }) {
  const box = svg.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
  return 1 + ((x - left) / (right - left)) * (last - 1);
}

function bindDiagram(figure, values, curves) {
  const { left, right, top, bottom, last, runs } = curves;
  const svg = figure.querySelector("svg");
  const readout = figure.querySelector("output");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("class", "at");
  const leave = () => {
    readout.textContent = "";
    line.remove();
  };
  svg.addEventListener("pointermove", (event) => {
    const wanted = stepBelow(svg, event, curves);
    if (wanted < 0.5 || wanted > last + 0.5) return leave();
    const nearest = nearestStep(values.flatMap(([steps]) => steps), wanted);
    const texts = values.map(([steps, numbers], run) => {
      const place = steps.indexOf(nearest);
      return place < 0 ? "" : `${runs.length > 1 ? `${runs[run]} ` : ""}${shortNumber(numbers[place])}`;
    });
    readout.textContent = `step ${nearest.toLocaleString("en")}: ${texts.filter(Boolean).join(", ")}`;
    const x = left + ((nearest - 1) / Math.max(1, last - 1)) * (right - left);
    line.setAttribute("d", `M${x} ${top}V${bottom}`);
    svg.append(line);
  });
  svg.addEventListener("pointerleave", leave);
}

/** Let a click on a curve show the groups of a step; `toStep` gives the step with groups that is nearest. */
async function linkDiagrams(toStep) {
  const curves = await curvesOfPage;
  for (const figure of figures) {
    const svg = figure.querySelector("svg");
    svg.classList.add("linked");
    svg.addEventListener("click", (event) => {
      const step = toStep(stepBelow(svg, event, curves));
      location.hash = new URLSearchParams({ from: step, to: step });
    });
  }
}

async function openCurves() {
  const curves = await unpack(takeBlock("curve-values"));
  figures.forEach((figure, place) => bindDiagram(figure, curves.values[place], curves));
  return curves;
}
const curvesOfPage = typeof DecompressionStream === "undefined" ? null : openCurves();
