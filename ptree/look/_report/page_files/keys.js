// Pointing and keys: select, fold and unfold rows, jump to one.

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
