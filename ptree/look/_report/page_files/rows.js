// The tree of rows: nodes made of the paths, folded and unfolded, filtered by a search, in an order.

// One node: `row` is the index of a leaf or alias, -1 of a node with children.
function newNode(name, parent, row) {
  return {
    name, parent, row, children: [], named: null, layers: null, at: 0, isOpen: false, isShut: false,
    leaves: 0, count: 0, bytes: 0, held: 0, differing: 0, change: 0, flags: 0, shown: 0,
  };
}

// The tree of all rows under the given paths, one for each row.
function buildTree(data, paths) {
  const root = newNode("", null, -1);
  const nodeOfRow = new Array(paths.length);
  let before = [];
  let trail = [root];
  for (let row = 0; row < paths.length; row += 1) {
    const segments = paths[row].split("/");
    const above = segments.length - 1;
    // neighbours share most of their path
    let same = 0;
    while (same < above && same < before.length && before[same] === segments[same]) same += 1;
    trail.length = same + 1;
    for (let level = same; level < above; level += 1) trail.push(childNamed(trail[level], segments[level]));
    before = segments.slice(0, above);
    nodeOfRow[row] = addChild(trail[above], newNode(segments[above], null, row));
  }
  sumUp(root, data);
  return { root, nodeOfRow };
}

// The tree in which the layers of a model are folded: `h/3/w` is under `h/{0..11}/w`.
function buildFolded(data) {
  const paths = [...data.path];
  for (const [name, rows] of data.layers) {
    for (const row of rows) paths[row] = `${name}/${layerName(name, data.path[row])}`;
  }
  const tree = buildTree(data, paths);
  for (const [, rows] of data.layers) tree.nodeOfRow[rows[0]].parent.layers = rows;
  join(tree.root);
  return tree;
}

function buildEach(data) {
  const tree = buildTree(data, data.path);
  join(tree.root);
  return tree;
}

// What stands in a path where the name of its group has braces.
function layerName(name, path) {
  const segments = path.split("/");
  return segments[name.split("/").findIndex((segment, at) => segment !== segments[at])];
}

function childNamed(node, name) {
  node.named ??= new Map();
  let child = node.named.get(name);
  if (!child) {
    child = addChild(node, newNode(name, null, -1));
    node.named.set(name, child);
  }
  return child;
}

function addChild(node, child) {
  child.parent = node;
  child.at = node.children.length;
  node.children.push(child);
  return child;
}

// Totals count a tied leaf once, and not what was removed.
function sumUp(node, data) {
  if (node.row >= 0) {
    const counts = !data.sourceOf.has(node.row) && !data.isRemoved(node.row);
    node.leaves = counts ? 1 : 0;
    node.count = counts ? data.count[node.row] : 0;
    node.bytes = counts ? data.bytes[node.row] : 0;
    node.held = counts ? (data.placeOf(node.row)?.[1] ?? 0) : 0;
    node.differing = data.differs(node.row) ? 1 : 0;
    node.change = data.changeSize(node.row);
    node.flags = data.flags[node.row];
    return;
  }
  for (const child of node.children) {
    sumUp(child, data);
    node.leaves += child.leaves;
    node.count += child.count;
    node.bytes += child.bytes;
    node.held += child.held;
    node.differing += child.differing;
    node.change = Math.max(node.change, child.change);
    node.flags |= child.flags;
  }
}

// Join a node that has one child with it: `pooler/dense/` is one row.
function join(node) {
  node.named = null;
  for (const child of node.children) join(child);
  node.children = node.children.map(joined);
}

function joined(node) {
  if (node.row >= 0 || node.children.length !== 1 || node.layers) return node;
  const [only] = node.children;
  only.name = `${node.name}/${only.name}`;
  only.parent = node.parent;
  only.at = node.at;
  return only;
}

const ORDERS = {
  declared: (one, two) => one.at - two.at,
  largest: (one, two) => two.count - one.count || one.at - two.at,
  held: (one, two) => two.held - one.held || one.at - two.at,
  changed: (one, two) => two.change - one.change || two.differing - one.differing || one.at - two.at,
  name: (one, two) => compareNames(one.name, two.name) || one.at - two.at,
};
// a collator that is made once: localeCompare is a hundred times slower
const collator = new Intl.Collator("en", { numeric: true });
const compareNames = (one, two) => collator.compare(one, two);

function sortTree(node, order) {
  // files that sort their names declare 0, 1, 10, 2
  const areLayers = order === "declared" && node.children.every((child) => /^\d/.test(child.name));
  node.children.sort(ORDERS[areLayers ? "name" : order]);
  for (const child of node.children) sortTree(child, order);
}

function setOpen(node, isOpen) {
  if (node.row >= 0) return;
  node.isOpen = isOpen;
  node.isShut = !isOpen; // in a search
  for (const child of node.children) setOpen(child, isOpen);
}

// Unfold level by level as long as the rows fit about two screens.
function openFirst(root, most) {
  let rows = root.children.length;
  let level = root.children;
  while (level.length > 0) {
    const inside = level.flatMap((node) => (node.layers ? [] : node.children));
    rows += inside.length;
    if (inside.length === 0 || rows > most) return;
    // the layers of one kernel are unfolded only by hand
    for (const node of level) node.isOpen = node.row < 0 && !node.layers;
    level = inside;
  }
}

// Mark what a search shows, and all nodes above; returns how many rows match, and the totals of their leaves.
function markShown({ root, nodeOfRow }, matches) {
  clearShown(root);
  const found = { rows: 0, leaves: 0, count: 0, bytes: 0 };
  for (let row = 0; row < nodeOfRow.length; row += 1) {
    if (!matches[row]) continue;
    const leaf = nodeOfRow[row];
    found.rows += 1;
    found.leaves += leaf.leaves;
    found.count += leaf.count;
    found.bytes += leaf.bytes;
    for (let node = leaf; node; node = node.parent) node.shown += 1;
  }
  return found;
}

function clearShown(node) {
  node.shown = 0;
  node.isShut = false;
  for (const child of node.children) clearShown(child);
}

// The rows in order, with their levels; of a search those that match and the nodes above them.
function visibleRows(root, isSearch) {
  const visible = [];
  const add = (node, level) => {
    for (const child of node.children) {
      if (isSearch && child.shown === 0) continue;
      visible.push({ node: child, level });
      if (isUnfolded(child, isSearch)) add(child, level + 1);
    }
  };
  add(root, 1);
  return visible;
}

function isUnfolded(node, isSearch) {
  if (node.row >= 0) return false;
  return isSearch ? !node.isShut : node.isOpen;
}
