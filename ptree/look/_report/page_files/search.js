// The search by text or pattern, and the buttons that filter.

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

// ------------------------------------------------------------------ heading and filters

function showHeading() {
  byId("title").textContent = data.other ? `${data.title} → ${data.other}` : data.title;
  byId("about").textContent = data.about;
  byId("totals").textContent = data.totals;
  byId("notes").textContent = data.notes.join("; ");
  byId("placed").textContent = data.placed?.totals ?? "";
  document.body.classList.toggle("is-placed", data.placed !== null);
  if (data.placed) byId("order").append(new Option("most on each device first", "held"));
  document.body.classList.toggle("is-diff", Boolean(data.other));
  document.body.classList.toggle("has-dtypes", data.dtypes.length > 1);
  if (data.other) byId("order").append(new Option("most changed first", "changed"));
  byId("layers").hidden = data.layers.length === 0;
  const box = byId("filters");
  FLAGS.forEach((name, at) => {
    const rows = data.flags.filter((flags) => flags & (1 << at)).length;
    if (rows === 0) return;
    const button = element("button", `chip ${name.replaceAll(" ", "-")}`, `${thousands.format(rows)} ${name}`);
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
