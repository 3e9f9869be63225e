// Rows in view: they are made as they scroll into view.

function refresh() {
  state.visible = visibleRows(state.tree.root, state.isSearch);
  grid.setAttribute("aria-rowcount", String(state.visible.length + 1));
  space.style.height = `${state.visible.length * state.rowHeight}px`;
  draw();
}

function draw() {
  const above = 8;
  const top = Math.max(0, grid.scrollTop);
  const first = Math.max(0, Math.floor(top / state.rowHeight) - above);
  const last = Math.min(state.visible.length, Math.ceil((top + grid.clientHeight) / state.rowHeight) + above);
  const made = [];
  for (let at = first; at < last; at += 1) made.push(rowElement(at));
  rowsBox.replaceChildren(...made);
  rowsBox.style.transform = `translateY(${first * state.rowHeight}px)`;
  const active = indexOf(state.active);
  if (active >= first && active < last) grid.setAttribute("aria-activedescendant", `row-${active}`);
  else grid.removeAttribute("aria-activedescendant");
}

function indexOf(node) {
  return node === null ? -1 : state.visible.findIndex((one) => one.node === node);
}

function rowElement(at) {
  const { node, level } = state.visible[at];
  const made = element("div", node.row < 0 ? "row node" : "row leaf");
  if (node.layers) made.classList.add("layers");
  made.style.setProperty("--level", String(Math.min(level, 12) - 1));
  made.id = `row-${at}`;
  made.setAttribute("role", "row");
  made.setAttribute("aria-level", String(level));
  made.setAttribute("aria-rowindex", String(at + 2));
  made.setAttribute("aria-selected", String(node === state.active));
  if (node.row < 0) made.setAttribute("aria-expanded", String(isUnfolded(node, state.isSearch)));
  if (node.row >= 0 && data.isRemoved(node.row)) made.classList.add("is-removed");
  made.append(nameCell(node), ...cellsOf(node));
  made.addEventListener("click", (event) => clickRow(event, node));
  return made;
}

function cell(className, text = "") {
  const made = element("span", className, text);
  made.setAttribute("role", "gridcell");
  return made;
}

function nameCell(node) {
  const made = cell("name");
  const mark = element("span", "mark", node.row >= 0 ? "" : isUnfolded(node, state.isSearch) ? "▾" : "▸");
  mark.setAttribute("aria-hidden", "true");
  const isFolder = node.row < 0 && !node.layers;
  const shown = node.name || "''";
  const name = element("bdi", "text", isFolder ? `${shown}/` : shown);
  made.title = pathOf(node);
  made.append(mark, name);
  if (node.flags & flag("not finite")) made.append(element("span", "warning", "! not finite"));
  if (node.flags & flag("unreadable") && node.row >= 0) made.append(element("span", "warning", "! unreadable"));
  return made;
}

function cellsOf(node) {
  if (node.row >= 0 && data.sourceOf.has(node.row)) return [tieCell(node), changeCell(node)];
  const isLeaf = node.row >= 0;
  const shape = isLeaf ? data.shapes[data.shape[node.row]] : insideText(node);
  const dtype = isLeaf ? data.dtypes[data.dtype[node.row]] : oneOf(node.layers, data.dtype, data.dtypes);
  const count = isLeaf ? data.count[node.row] : node.count;
  const bytes = isLeaf ? data.bytes[node.row] : node.bytes;
  return [
    cell("shape", shape),
    cell("dtype", dtype),
    changeCell(node),
    cell("count", thousands.format(count)),
    cell("bytes", inBytes(bytes)),
    ...placeCells(node),
    shareCell(node),
  ];
}

// What divides a leaf, and what each device holds of it or of all leaves in a node.
function placeCells(node) {
  if (!data.placed) return [];
  const made = cell("divided", placeText(node));
  if (node.flags & flag("on one device")) made.classList.add("warning");
  return [made, cell("held", inBytes(node.held))];
}

function placeText(node) {
  if (node.row >= 0) {
    const place = data.placeOf(node.row);
    return place ? data.placed.specs[place[2]] : "";
  }
  const places = new Set((node.layers ?? []).map((row) => data.placeOf(row)?.[2]));
  const [only] = places;
  return places.size === 1 && only !== undefined ? data.placed.specs[only] : "";
}

// What is inside a node: `12 × [768, 768]` of the layers of one kernel, else how many leaves.
function insideText(node) {
  const shape = oneOf(node.layers, data.shape, data.shapes);
  if (shape) return `${node.layers.length} × ${shape}`;
  return `${thousands.format(node.leaves)} ${node.leaves === 1 ? "leaf" : "leaves"}`;
}

// The text that all these rows have in a column; "" where they differ.
function oneOf(rows, column, texts) {
  if (!rows || rows.some((row) => column[row] !== column[rows[0]])) return "";
  return texts[column[rows[0]]];
}

function shareCell(node) {
  const whole = state.tree.root.count;
  const made = cell("share");
  const track = element("span", "track");
  if (node.count > 0) {
    const bar = element("span", "bar");
    bar.style.width = `${(100 * node.count) / whole}%`;
    track.append(bar);
  }
  made.append(element("span", "percent", inPercent(node.count, whole)), track);
  return made;
}

function tieCell(node) {
  const made = cell("tie", "= ");
  made.append(tieLink(node.row));
  return made;
}

// The link from an alias to its source.
function tieLink(row) {
  return linkTo(data.sourceOf.get(row), data.shownTie.get(row));
}

function linkTo(row, text) {
  const link = element("a");
  link.append(element("bdi", "", text));
  link.href = `#${encodeURIComponent(data.path[row])}`;
  link.tabIndex = -1;
  link.addEventListener("click", (event) => {
    event.stopPropagation();
    // a second click on the link of the present address changes no address
    if (location.hash === new URL(link.href).hash) jump(row);
  });
  return link;
}

function changeCell(node) {
  const made = cell("change");
  if (!data.other) return made;
  if (node.row < 0) {
    const size = node.change > 0 && Number.isFinite(node.change) ? `, up to ${shortNumber(node.change)}` : "";
    if (node.differing) made.textContent = `${thousands.format(node.differing)} differ${size}`;
    return made;
  }
  const change = data.changes[node.row];
  if (!change) return made;
  for (const kind of change.kinds) {
    made.append(element("span", `badge ${kind}`, kind));
  }
  if (typeof change.relative === "number" && change.relative > 0) made.append(shortNumber(change.relative));
  return made;
}

function pathOf(node) {
  if (node.row >= 0) return data.path[node.row];
  if (node.layers) return groupName(node);
  const names = [];
  for (let above = node; above.parent; above = above.parent) names.unshift(above.name);
  return `${names.join("/")}/`;
}

function groupName(node) {
  return data.layers.find(([, rows]) => rows === node.layers)[0];
}
