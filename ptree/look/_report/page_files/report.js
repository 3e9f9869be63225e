// The page: its state, its controls, its start.

const byId = (id) => document.getElementById(id);
const [grid, rowsBox, space, panel, searchBox] = ["grid", "rows", "space", "panel", "search"].map(byId);

const data = readData();
const state = { tree: null, order: "declared", visible: [], active: null, isSearch: false, filter: 0, rowHeight: 26, waiting: 0 };

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
