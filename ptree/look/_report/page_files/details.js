// Details of the selected row: path, sizes, other names, statistics, histogram, what changed, one number for each layer.

const NUMBER_NAMES = ["mean", "std", "least", "largest", "zeros", "not finite", "first not finite"];

function showDetails(node) {
  const parts = [detailsHeading(node)];
  if (node.row < 0) parts.push(...nodeDetails(node));
  else parts.push(...leafDetails(node.row));
  panel.replaceChildren(...parts);
  panel.hidden = false;
  panel.scrollTop = 0;
  document.body.classList.add("has-panel");
  draw();
}

function hideDetails() {
  panel.hidden = true;
  document.body.classList.remove("has-panel");
  draw();
}

function detailsHeading(node) {
  const heading = element("div", "heading");
  const close = element("button", "close", "×");
  close.type = "button";
  close.setAttribute("aria-label", "Close the details");
  close.addEventListener("click", () => {
    hideDetails();
    grid.focus();
  });
  heading.append(element("h2", "", pathOf(node)), close);
  return heading;
}

function nodeDetails(node) {
  const facts = [
    ["leaves", thousands.format(node.leaves)],
    ["parameters", thousands.format(node.count)],
    ["share", inPercent(node.count, state.tree.root.count)],
    ["size", inBytes(node.bytes)],
  ];
  if (data.placed) facts.push(["on each device", inBytes(node.held)]);
  if (node.layers) facts.unshift(["shape", insideText(node)]);
  return [factList(facts), ...(node.layers ? layerDrawings(node.layers, -1) : [])];
}

function leafDetails(row) {
  const parts = [];
  const isFault = data.flags[row] & flag("unreadable");
  if (data.problemOf.has(row)) parts.push(element("p", isFault ? "warning" : "quiet", problemText(row)));
  parts.push(factList(leafFacts(row)));
  const change = data.changes[row];
  if (change) parts.push(...changeDetails(change));
  const leaf = data.sourceOf.has(row) ? data.sourceOf.get(row) : row;
  const [now, before] = [data.numbers[leaf], data.before[leaf]];
  if (now || before) parts.push(...numberDetails(now, before));
  else if (!data.problemOf.has(row)) parts.push(element("p", "quiet", "It has no numbers to count."));
  parts.push(...layerDetails(leaf));
  return parts;
}

// Why a leaf has no numbers: a sentence about the leaf, or what went wrong when it was read.
function problemText(row) {
  const problem = data.problemOf.get(row);
  return /^(has|holds|is) /.test(problem) ? `This leaf ${problem}.` : problem;
}

function leafFacts(row) {
  const facts = [
    ["shape", data.shapes[data.shape[row]] || "none"],
    ["dtype", data.dtypes[data.dtype[row]]],
    ["parameters", thousands.format(data.count[row])],
    ["size", inBytes(data.bytes[row])],
  ];
  if (data.sourceOf.has(row)) facts.push(["is tied to", tieLink(row)]);
  for (const alias of data.aliasesOf.get(row) ?? []) facts.push(["also named", linkTo(alias, data.path[alias])]);
  if (data.frozen[row]) facts.push(["trained", "no"]);
  facts.push(...placeFacts(row));
  for (const [, shown] of facts) if (shown instanceof Element) shown.tabIndex = 0;
  return facts;
}

function placeFacts(row) {
  const place = data.placeOf(row);
  if (!place) return [];
  const [kind, bytes, spec, part, why] = place;
  const facts = PLACES[kind] === "on one device" ? [] : [
    ["divided by", data.placed.specs[spec]],
    ["on each device", `${data.placed.parts[part]}, ${inBytes(bytes)}`],
  ];
  if (data.placed.whys[why]) facts.push(["placed", data.placed.whys[why]]);
  return facts;
}

function factList(facts) {
  const list = element("dl");
  for (const [name, value] of facts) {
    const shown = element("dd");
    shown.append(value);
    list.append(element("dt", "", name), shown);
  }
  return list;
}

function changeDetails(change) {
  const facts = [["change", change.kinds.join(", ")]];
  if (change.from) facts.push(["was", change.from]);
  if (change.note) facts.push(["", change.note]);
  for (const [name, value] of [["relative", change.relative], ["largest", change.largest], ["cosine", change.cosine]]) {
    if (value !== null && value !== undefined) facts.push([name, shortNumber(value)]);
  }
  return [element("h3", "", "Difference"), factList(facts)];
}

// ------------------------------------------------------------------ numbers

function numberDetails(now, before) {
  const parts = [element("h3", "", "Numbers"), numberTable(now, before)];
  const histograms = [before, now].filter((one) => one && one[11]).map(histogramOfNumbers);
  if (histograms.length > 0) {
    const label = "Histogram of the numbers of this leaf";
    parts.push(histogramDrawing(histograms, label), ...beyondTexts(now ?? before));
    if (histograms.length > 1) parts.push(element("p", "quiet", "Bars: after. Line: before."));
  }
  return parts;
}

function histogramOfNumbers(numbers) {
  const counts = numbers[11].split(",").map(Number);
  return histogramOf(numbers[7], numbers[8], counts);
}

function beyondTexts(numbers) {
  const [below, above] = [numbers[9], numbers[10]];
  if (below + above === 0) return [];
  const texts = [];
  if (below) texts.push(`${thousands.format(below)} below`);
  if (above) texts.push(`${thousands.format(above)} above`);
  return [element("p", "quiet", `Beyond the histogram, which ends 5 std from the mean: ${texts.join(", ")}`)];
}

function numberTable(now, before) {
  const table = element("table");
  const columns = [before, now].filter(Boolean);
  if (before && now) table.append(tableRow("th", ["", "before", "after"]));
  NUMBER_NAMES.forEach((name, at) => {
    const values = columns.map((numbers) => numbers[at]);
    const isSaid = at < 5 || values.some((value) => value);
    if (isSaid) table.append(tableRow("td", [name, ...values.map((value) => numberText(at, value))]));
  });
  return table;
}

function numberText(at, value) {
  if (at === 4 || at === 5) return thousands.format(value);
  if (at === 6) return value ? `(${value.join(", ")})` : "";
  return shortNumber(value);
}

function tableRow(tag, texts) {
  const row = element("tr");
  texts.forEach((text, at) => row.append(element(at === 0 ? "th" : tag, "", text)));
  return row;
}

// ------------------------------------------------------------------ layers

// The same leaf in each layer: its standard deviation and, of two inputs, its relative change.
function layerDetails(row) {
  const group = data.groupOf.get(row);
  if (!group) return stackDrawing(row);
  return layerDrawings(group, group.indexOf(row));
}

// The layers of one stacked leaf.
function stackDrawing(row) {
  const stds = data.numbers[row]?.[12];
  if (!stds || stds.filter(Number.isFinite).length < 2) return [];
  const labels = stds.map((_, layer) => `layer ${layer}`);
  return [element("h3", "", "Std by layer"), layersDrawing(stds, labels, -1, () => {}, "Std by layer")];
}

function layerDrawings(group, current) {
  const labels = group.map((one) => data.path[one]);
  const follow = (at) => jump(group[at]);
  const parts = [];
  const add = (title, values) => {
    if (values.filter(Number.isFinite).length < 2) return;
    parts.push(element("h3", "", title), layersDrawing(values, labels, current, follow, title));
  };
  add("Std by layer", group.map((one) => data.numbers[one]?.[1]));
  if (data.other) add("Relative change by layer", group.map((one) => data.changes[one]?.relative));
  return parts;
}
