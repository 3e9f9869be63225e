// Numbers and sizes as text, and drawings as SVG: a histogram, two on one axis, a line by layer.

const SVG = "http://www.w3.org/2000/svg";
const thousands = new Intl.NumberFormat("en-US");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

function inBytes(count) {
  let power = 0;
  let size = count;
  while (size >= 1024 && power < UNITS.length - 1) {
    size /= 1024;
    power += 1;
  }
  return power === 0 ? `${size} B` : `${size.toFixed(1)} ${UNITS[power]}`;
}

function inPercent(part, whole) {
  if (part === 0) return "";
  const percent = (100 * part) / whole;
  return percent > 0 && percent < 0.05 ? "<0.1%" : `${percent.toFixed(1)}%`;
}

// A number in at most five digits; NaN and infinities come as text.
function shortNumber(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

// An element with a class and a text; texts never become markup.
function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function drawn(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text) made.textContent = text;
  return made;
}

function canvas(width, height, label) {
  return drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "drawing" });
}

const WIDTH = 360;
const HEIGHT = 120;
const FOOT = 18;

// Histograms on one axis, the first one behind as an outline. Heights are densities: bins of two can differ in width.
function histogramDrawing(histograms, label) {
  const svg = canvas(WIDTH, HEIGHT + FOOT, label);
  const low = Math.min(...histograms.map((one) => one.low));
  const high = Math.max(...histograms.map((one) => one.high));
  const span = high - low || 1;
  const tallest = Math.max(...histograms.flatMap((one) => one.bins.map((bin) => bin.density)));
  const scale = { low, span, tallest };
  histograms.forEach((one, at) => {
    const isBehind = histograms.length > 1 && at === 0;
    svg.append(isBehind ? outline(one, scale) : bars(one, scale));
  });
  if (low < 0 && high > 0) {
    const x = (-low / span) * WIDTH;
    svg.append(drawn("line", { x1: x, x2: x, y1: 0, y2: HEIGHT, class: "zero" }));
  }
  svg.append(drawn("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis" }));
  addAxisTexts(svg, low, high, span);
  return svg;
}

function addAxisTexts(svg, low, high, span) {
  const y = HEIGHT + FOOT - 4;
  svg.append(drawn("text", { x: 0, y, class: "tick" }, shortNumber(low)));
  if (high === low) return;
  svg.append(drawn("text", { x: WIDTH, y, class: "tick end" }, shortNumber(high)));
  const zero = (-low / span) * WIDTH;
  if (zero > 70 && zero < WIDTH - 70) svg.append(drawn("text", { x: zero, y, class: "tick middle" }, "0"));
}

// The corners of a bin in the drawing. A count above 0 is at least one pixel high.
function box(bin, { low, span, tallest }) {
  const left = ((bin.low - low) / span) * WIDTH;
  const width = Math.max(1, ((bin.high - bin.low) / span) * WIDTH);
  const height = bin.count === 0 ? 0 : Math.max(1, (bin.density / tallest) * (HEIGHT - 4));
  return { left, width, height };
}

function bars(histogram, scale) {
  const group = drawn("g", { class: "bars" });
  for (const bin of histogram.bins) {
    if (bin.count === 0) continue;
    const { left, width, height } = box(bin, scale);
    const gap = width > 3 ? 1 : 0;
    const bar = drawn("rect", { x: left, width: width - gap, y: HEIGHT - height, height });
    bar.append(drawn("title", {}, `${shortNumber(bin.low)} to ${shortNumber(bin.high)}: ${thousands.format(bin.count)}`));
    group.append(bar);
  }
  return group;
}

function outline(histogram, scale) {
  const points = [];
  for (const bin of histogram.bins) {
    const { left, width, height } = box(bin, scale);
    points.push(`${left},${HEIGHT - height}`, `${left + width},${HEIGHT - height}`);
  }
  return drawn("polyline", { points: points.join(" "), class: "outline" });
}

// The bins of a histogram: of a leaf whose numbers are all equal one bin of width 1 around them, so that it can be seen.
function histogramOf(low, high, counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (low === high) return { low: low - 0.5, high: high + 0.5, bins: [bin(low - 0.02, low + 0.02, total, total)] };
  const width = (high - low) / counts.length;
  const bins = counts.map((count, at) => bin(low + at * width, low + (at + 1) * width, count, total));
  return { low, high, bins };
}

function bin(low, high, count, total) {
  return { low, high, count, density: count / (total || 1) / (high - low) };
}

// One number for each layer, as points joined by a line; the point of the shown layer is larger, and each is a link.
function layersDrawing(values, labels, current, follow, label) {
  const height = 72;
  const svg = canvas(WIDTH, height + FOOT, label);
  const finite = values.filter(Number.isFinite);
  const low = Math.min(...finite);
  const high = Math.max(...finite);
  const span = high - low || 1;
  const place = (at) => [
    values.length > 1 ? 6 + (at / (values.length - 1)) * (WIDTH - 12) : WIDTH / 2,
    high === low ? height / 2 : height - 6 - ((values[at] - low) / span) * (height - 12),
  ];
  const seen = values.map((_, at) => at).filter((at) => Number.isFinite(values[at]));
  svg.append(drawn("polyline", { points: seen.map((at) => place(at).join(",")).join(" "), class: "line" }));
  // of very many layers the line alone, and the shown one
  const marked = seen.length <= 400 ? seen : seen.filter((at) => at === current);
  for (const at of marked) {
    const [cx, cy] = place(at);
    const point = drawn("circle", { cx, cy, r: at === current ? 5 : 3, class: at === current ? "point here" : "point" });
    point.append(drawn("title", {}, `${labels[at]}: ${shortNumber(values[at])}`));
    point.addEventListener("click", () => follow(at));
    svg.append(point);
  }
  svg.append(drawn("text", { x: 0, y: height + FOOT - 4, class: "tick" }, `${shortNumber(low)} to ${shortNumber(high)}`));
  svg.append(drawn("text", { x: WIDTH, y: height + FOOT - 4, class: "tick end" }, `${values.length} layers`));
  return svg;
}
