// The data of the page: what Python wrote, with look-ups by row, and the flags that rows are filtered by.

// What rows can be filtered by: one bit each.
const FLAGS = [
  "changed", "renamed", "reshaped", "restacked", "retyped", "transposed", "tied", "untied", "retied", "added",
  "removed", "unread", "the same", "alias", "not finite", "not trained", "unreadable",
  "divided", "on every device", "on one device",
];

// How a leaf lives on devices, by the number that Python writes.
const PLACES = ["divided", "on every device", "on one device"];

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
  given.differs = (row) => (given.changes[row]?.kinds ?? []).some((kind) => kind !== "renamed");
  given.changeSize = (row) => sizeOfChange(given.changes[row]?.relative);
  given.placeOf = (row) => given.placed?.rows[row] ?? null;
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
  if (given.other && !given.differs(row) && !given.sourceOf.has(row)) flags |= flag("the same");
  const [leaf, before] = [given.numbers[row], given.before[row]];
  if (leaf?.[5] || before?.[5]) flags |= flag("not finite");
  if (given.sourceOf.has(row)) flags |= flag("alias");
  // what is no array has no numbers, and that is no fault
  if (given.problemOf.has(row) && given.shapes[given.shape[row]]) flags |= flag("unreadable");
  if (given.frozen[row]) flags |= flag("not trained");
  const place = given.sourceOf.has(row) ? null : given.placeOf(row);
  if (place) flags |= flag(PLACES[place[0]]);
  return flags;
}
