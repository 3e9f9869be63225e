// The page: rows that are made as they scroll into view, search, keys, details of the selected row.

// What rows can be filtered by: one bit each.
const FLAGS = [
  "changed", "renamed", "reshaped", "restacked", "retyped", "transposed", "tied", "untied", "retied", "added",
  "removed", "unread", "the same", "alias", "not finite", "not trained", "unreadable",
];

const byId = (id) => document.getElementById(id);
const [grid, rowsBox, space, panel, searchBox] = ["grid", "rows", "space", "panel", "search"].map(byId);

const data = readData();
const state = { tree: null, order: "declared", visible: [], active: null, isSearch: false, filter: 0, rowHeight: 26, waiting: 0 };

// ------------------------------------------------------------------ data

function readData() {
  const given = JSON.parse(byId("data").textContent);
  given.sourceOf = new Map(given.ties.map(([row, source]) => [row, source]));
  given.shownTie = new Map(given.ties.map(([row, , shown]) => [row, shown]));
  given.aliasesOf = new Map();
  for (const [row, source] of given.ties) {
    if (!given.aliasesOf.has(source)) given.aliasesOf.set(source, []);
    given.aliasesOf.get(source).push(row);
  }
  given.problemOf = new Map(given.problems);
  given.groupOf = new Map();
  for (const [, rows] of given.layers) for (const row of rows) given.groupOf.set(row, rows);
  given.changes ??= [];
  given.before ??= [];
  given.isRemoved = (row) => given.changes[row]?.kinds[0] === "removed";
  given.differs = (row) => Boolean(given.changes[row]);
  given.changeSize = (row) => sizeOfChange(given.changes[row]?.relative);
  given.flags = given.path.map((_, row) => flagsOf(given, row));
  return given;
}

// A relative size comes as a number, as nothing, or as a text: "inf" from a leaf of zeros, "nan".
function sizeOfChange(relative) {
  if (relative === undefined) return 0;
  return typeof relative === "number" ? relative : Infinity;
}

function flag(name) {
  return 1 << FLAGS.indexOf(name);
}

function flagsOf(given, row) {
  let flags = 0;
  for (const kind of given.changes[row]?.kinds ?? []) flags |= flag(kind);
  if (given.other && !given.changes[row] && !given.sourceOf.has(row)) flags |= flag("the same");
  const [leaf, before] = [given.numbers[row], given.before[row]];
  if (leaf?.[5] || before?.[5]) flags |= flag("not finite");
  if (given.sourceOf.has(row)) flags |= flag("alias");
  // what is no array has no numbers, and that is no fault
  if (given.problemOf.has(row) && given.shapes[given.shape[row]]) flags |= flag("unreadable");
  if (given.frozen[row]) flags |= flag("not trained");
  return flags;
}

// ------------------------------------------------------------------ heading and filters

function showHeading() {
  byId("title").textContent = data.other ? `${data.title} → ${data.other}` : data.title;
  byId("about").textContent = data.about;
  byId("totals").textContent = data.totals;
  byId("notes").textContent = data.notes.join("; ");
  document.body.classList.toggle("is-diff", Boolean(data.other));
  document.body.classList.toggle("has-dtypes", data.dtypes.length > 1);
  if (data.other) byId("order").append(new Option("most changed first", "changed"));
  byId("layers").hidden = data.layers.length === 0;
  const box = byId("filters");
  FLAGS.forEach((name, at) => {
    const rows = data.flags.filter((flags) => flags & (1 << at)).length;
    if (rows === 0) return;
    const button = element("button", `chip ${name.replace(" ", "-")}`, `${thousands.format(rows)} ${name}`);
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => toggleFilter(button, 1 << at));
    box.append(button);
  });
}

function toggleFilter(button, bit) {
  const isOn = button.getAttribute("aria-pressed") === "true";
  button.setAttribute("aria-pressed", String(!isOn));
  state.filter ^= bit;
  search();
}

// ------------------------------------------------------------------ search

function search() {
  clearTimeout(state.waiting);
  const text = searchBox.value.trim();
  state.isSearch = text !== "" || state.filter !== 0;
  searchBox.removeAttribute("aria-invalid");
  let found = null;
  if (state.isSearch) {
    try {
      found = markShown(state.tree, matchesOf(text));
    } catch (error) {
      if (!(error instanceof PatternError)) throw error;
      searchBox.setAttribute("aria-invalid", "true");
      byId("found").textContent = error.message;
      return;
    }
  }
  byId("found").textContent = found ? foundText(found) : "";
  refresh();
  grid.scrollTop = 0;
}

function foundText(found) {
  if (found.rows === 0) return `nothing matches in ${thousands.format(data.path.length)} rows`;
  const rows = `${thousands.format(found.rows)} of ${thousands.format(data.path.length)} rows`;
  return `${rows}: ${thousands.format(found.count)} parameters, ${inBytes(found.bytes)}`;
}

// For each row whether it matches. A pattern that matches any name of a leaf selects the leaf under all its names.
function matchesOf(text) {
  const matches = new Uint8Array(data.path.length);
  const test = text === "" ? () => true : isPattern(text) ? patternMatcher(text) : textMatcher(text);
  for (let row = 0; row < matches.length; row += 1) matches[row] = test(data.path[row]) ? 1 : 0;
  if (text !== "" && isPattern(text)) addOtherNames(matches);
  if (state.filter === 0) return matches;
  for (let row = 0; row < matches.length; row += 1) if (!(data.flags[row] & state.filter)) matches[row] = 0;
  return matches;
}

function addOtherNames(matches) {
  for (const [row, source] of data.sourceOf) if (matches[row]) matches[source] = 1;
  for (const [row, source] of data.sourceOf) if (matches[source]) matches[row] = 1;
}

function textMatcher(text) {
  const words = text.toLowerCase().split(/\s+/);
  return (path) => {
    const lower = path.toLowerCase();
    return words.every((word) => lower.includes(word));
  };
}

// ------------------------------------------------------------------ rows in view

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
  const name = element("bdi", "text", isFolder ? `${node.name}/` : node.name);
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
    shareCell(node),
  ];
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

// ------------------------------------------------------------------ pointing, keys

function clickRow(event, node) {
  if (node.row < 0) toggle(node);
  select(node, true);
}

function toggle(node, isOpen = !isUnfolded(node, state.isSearch)) {
  if (node.row >= 0) return;
  if (state.isSearch) node.isShut = !isOpen;
  else node.isOpen = isOpen;
  refresh();
}

function select(node, showsDetails) {
  state.active = node;
  const hasRoom = matchMedia("(min-width: 900px)").matches;
  // first: the details take room from the rows
  if (showsDetails || hasRoom) showDetails(node);
  scrollToRow(indexOf(node));
  draw();
}

function scrollToRow(at) {
  if (at < 0) return;
  const top = at * state.rowHeight;
  const height = grid.clientHeight - byId("head").offsetHeight;
  const isFar = Math.abs(top - grid.scrollTop - height / 2) > height;
  if (isFar) grid.scrollTop = top - height / 2;
  else if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + state.rowHeight > grid.scrollTop + height) grid.scrollTop = top + state.rowHeight - height;
}

function move(steps) {
  if (state.visible.length === 0) return;
  const at = indexOf(state.active);
  const to = at < 0 ? 0 : Math.min(Math.max(at + steps, 0), state.visible.length - 1);
  select(state.visible[to].node, false);
}

function foldOrLeave(node) {
  if (node.row < 0 && isUnfolded(node, state.isSearch)) toggle(node, false);
  else if (node.parent && node.parent !== state.tree.root) select(node.parent, false);
}

function unfoldOrEnter(node) {
  if (node.row < 0 && !isUnfolded(node, state.isSearch)) toggle(node, true);
  else if (node.row < 0) move(1);
}

const KEYS = {
  ArrowDown: () => move(1),
  ArrowUp: () => move(-1),
  PageDown: () => move(Math.floor(grid.clientHeight / state.rowHeight) - 2),
  PageUp: () => move(2 - Math.floor(grid.clientHeight / state.rowHeight)),
  Home: () => move(-state.visible.length),
  End: () => move(state.visible.length),
  ArrowRight: () => state.active && unfoldOrEnter(state.active),
  ArrowLeft: () => state.active && foldOrLeave(state.active),
  Enter: () => state.active && enter(state.active),
  " ": () => state.active && enter(state.active),
};

function enter(node) {
  if (node.row < 0) toggle(node);
  if (data.sourceOf.has(node.row)) jump(data.sourceOf.get(node.row));
  else showDetails(node);
}

function addKeys() {
  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") goBack();
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target === searchBox) return;
    event.preventDefault();
    searchBox.focus();
    searchBox.select();
  });
  searchBox.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "ArrowDown") return;
    event.preventDefault();
    search(); // which may still wait for more keys
    grid.focus();
    const first = state.visible.find((one) => one.node.row >= 0);
    if (first) select(first.node, event.key === "Enter");
  });
}

// Escape closes the details, then empties the search.
function goBack() {
  if (!panel.hidden) {
    hideDetails();
    grid.focus();
  } else if (searchBox.value) {
    searchBox.value = "";
    search();
    scrollToRow(indexOf(state.active));
    draw();
  }
}

// Show a row wherever it is: leave the search if it hides the row, and unfold the nodes above.
function jump(row) {
  const node = state.tree.nodeOfRow[row];
  if (state.isSearch && node.shown === 0) leaveSearch();
  for (let above = node.parent; above; above = above.parent) {
    above.isOpen = true;
    above.isShut = false;
  }
  refresh();
  select(node, true);
  grid.focus();
}

function leaveSearch() {
  searchBox.value = "";
  state.filter = 0;
  for (const chip of byId("filters").children) chip.setAttribute("aria-pressed", "false");
  search();
}

function jumpToAddress() {
  let path;
  try {
    path = decodeURIComponent(location.hash.slice(1));
  } catch {
    return; // not an address that this page wrote
  }
  const row = path ? data.path.indexOf(path) : -1;
  if (row >= 0) jump(row);
}

// ------------------------------------------------------------------ start

function measureRows() {
  const height = getComputedStyle(document.documentElement).getPropertyValue("--row");
  state.rowHeight = Number.parseInt(height, 10);
}

function switchTheme() {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
  byId("theme").textContent = isDark ? "Dark" : "Light";
}

function addControls() {
  searchBox.addEventListener("input", () => {
    clearTimeout(state.waiting);
    // of many rows not at each key
    state.waiting = setTimeout(search, data.path.length > 20000 ? 150 : 0);
  });
  byId("order").addEventListener("change", (event) => {
    state.order = event.target.value;
    sortTree(state.tree.root, state.order);
    refresh();
    grid.scrollTop = 0;
  });
  for (const [id, isOpen] of [["unfold", true], ["fold", false]]) {
    byId(id).addEventListener("click", () => {
      for (const child of state.tree.root.children) setOpen(child, isOpen);
      refresh();
    });
  }
  byId("layers").addEventListener("click", () => {
    const isEach = byId("layers").getAttribute("aria-pressed") === "true";
    byId("layers").setAttribute("aria-pressed", String(!isEach));
    showTree(isEach ? buildFolded(data) : buildEach(data));
  });
  byId("theme").addEventListener("click", switchTheme);
  if (matchMedia("(prefers-color-scheme: dark)").matches) byId("theme").textContent = "Light";
  grid.addEventListener("scroll", draw, { passive: true });
  window.addEventListener("resize", () => {
    measureRows();
    refresh();
  });
  window.addEventListener("hashchange", jumpToAddress);
}

// Show another tree of the same rows; what was selected is selected again.
function showTree(tree) {
  const row = state.active?.row ?? -1;
  state.tree = tree;
  state.active = null;
  openFirst(tree.root, 60);
  if (state.order !== "declared") sortTree(tree.root, state.order);
  search();
  if (row >= 0) jump(row);
}

showHeading();
measureRows();
addControls();
addKeys();
showTree(buildFolded(data));
jumpToAddress();
document.documentElement.dataset.ready = String(performance.now());
