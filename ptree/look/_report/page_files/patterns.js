// Patterns of ptree in the search: * ? [abc] {a,b} {0..11} and **, matched by sets of positions, so that nothing backtracks.

const SLASH = "/".codePointAt(0);

class PatternError extends Error {}

function fail(why) {
  throw new PatternError(`bad pattern: ${why}`);
}

function isPattern(text) {
  return /[*?[\]{}\\]/.test(text);
}

// Parse a pattern into elements: {text}, {slash}, {star}, {stars}, {any}, {ranges, negated}, {low, high, width}, {braces}.
function parsePattern(text) {
  const characters = [...text];
  let at = 0;

  function sequence(depth) {
    const elements = [];
    while (at < characters.length) {
      const one = characters[at];
      if (depth > 0 && (one === "," || one === "}")) break;
      elements.push(element(one, depth));
    }
    return elements;
  }

  function element(one, depth) {
    if (one === "\\") {
      if (at + 1 === characters.length) fail("it ends in a backslash");
      at += 2;
      return { text: characters[at - 1] };
    }
    if (one === "*") return stars();
    if (one === "[") return characterClass();
    if (one === "{") return braces(depth);
    if (one === "}" || one === "]") fail(`'${one}' closes nothing`);
    if (depth > 0 && one === "." && characters[at + 1] === ".") fail("a range, as in {0..11}, is alone in its braces");
    at += 1;
    if (one === "/") return { slash: true };
    return one === "?" ? { any: true } : { text: one };
  }

  function stars() {
    const start = at;
    while (characters[at] === "*") at += 1;
    if (at - start > 2) fail("use '*' inside a segment, or '**' as a whole segment");
    return at - start === 2 ? { stars: true } : { star: true };
  }

  function characterClass() {
    at += 1;
    if (characters[at] === "^") fail("the other characters are '[!...]'");
    const negated = characters[at] === "!";
    if (negated) at += 1;
    const ranges = [];
    while (at < characters.length && characters[at] !== "]") {
      const low = classCharacter();
      let high = low;
      if (characters[at] === "-" && at + 1 < characters.length && characters[at + 1] !== "]") {
        at += 1;
        high = classCharacter();
      }
      if (low > high) fail("a range in '[...]' is empty");
      if (low <= SLASH && SLASH <= high) fail("'/' cannot stand inside '[...]'");
      ranges.push([low, high]);
    }
    if (at === characters.length) fail("'[' is not closed");
    if (ranges.length === 0) fail("'[]' holds no character");
    at += 1;
    return { ranges, negated };
  }

  function classCharacter() {
    if (characters[at] === "\\") at += 1;
    at += 1;
    return (characters[at - 1] ?? "").codePointAt(0) ?? 0;
  }

  function braces(depth) {
    if (depth === 50) fail("braces are nested more than 50 deep");
    const range = /^\{(\d+)\.\.(\d+)\}/.exec(characters.slice(at, at + 42).join(""));
    if (range) {
      at += range[0].length;
      return numberRange(range[1], range[2]);
    }
    at += 1;
    const alternatives = [sequence(depth + 1)];
    while (characters[at] === ",") {
      at += 1;
      alternatives.push(sequence(depth + 1));
    }
    if (characters[at] !== "}") fail("'{' is not closed");
    at += 1;
    if (alternatives.length === 1 && alternatives[0].length === 0) fail("'{}' holds no alternative");
    return { braces: alternatives };
  }

  function numberRange(low, high) {
    const padded = (low.length > 1 && low[0] === "0") || (high.length > 1 && high[0] === "0");
    if (Number(low) > Number(high)) fail(`the range {${low}..${high}} is empty`);
    if (padded && low.length !== high.length) fail("the ends of a range have leading zeros and different widths");
    return { low: Number(low), high: Number(high), width: padded ? low.length : 0 };
  }

  const elements = sequence(0);
  if (elements.length === 0) fail("it is empty");
  return elements;
}

// ------------------------------------------------------------------ spellings: sequences of whole segments

const MOST_SPELLINGS = 1000;

// The sequences of elements that a pattern stands for once each choice among braces with a slash inside is made.
function spellings(elements) {
  let written = [[]];
  for (const element of elements) {
    const ways = crosses(element) ? element.braces.flatMap(spellings) : [[element]];
    if (written.length * ways.length > MOST_SPELLINGS) fail(`its braces stand for more than ${MOST_SPELLINGS} patterns`);
    written = written.flatMap((before) => ways.map((way) => [...before, ...way]));
  }
  return written;
}

function crosses(element) {
  if (!element.braces) return false;
  return element.braces.some((way) => way.some((inner) => inner.slash || inner.stars || crosses(inner)));
}

// The parts of a spelling: {stars: true}, or {elements, isStack, cache} that match one segment.
function partsOf(elements) {
  const segments = [[]];
  for (const element of elements) {
    if (element.slash) segments.push([]);
    else segments.at(-1).push(element);
  }
  return segments.map(partOf);
}

function partOf(elements) {
  if (elements.length === 0) fail("it has an empty segment (a '/' too many)");
  if (elements.length === 1 && elements[0].stars) return { stars: true };
  if (elements.some((element) => element.stars)) fail("'**' must be a whole segment; inside a segment use '*'");
  return { elements, namesStack: namesStack(elements), cache: new Map() };
}

// Whether a segment names the layers of a stack, which lie under ":": it is `*` or `:`, or numbers without wildcards.
function namesStack(elements) {
  const only = elements.length === 1 ? elements[0] : {};
  if (only.braces) return only.braces.some(namesStack);
  if (only.star || only.text === ":" || only.low !== undefined) return true;
  return elements.every((element) => /^[0-9]$/.test(element.text ?? ""));
}

// A function that tells whether a pattern matches a path, or a node above it.
function patternMatcher(text) {
  const sequences = spellings(parsePattern(text)).map(partsOf);
  return (path) => {
    const segments = path.split("/");
    return sequences.some((parts) => matchesNode(parts, segments));
  };
}

// Positions are counts of parts that were read; with `**` there can be several after a segment.
function matchesNode(parts, segments) {
  let positions = withEmptyStars(parts, [0]);
  for (const segment of segments) {
    if (positions.includes(parts.length)) return true;
    const next = [];
    for (const position of positions) {
      const part = parts[position];
      if (part.stars) next.push(position);
      else if (fits(part, segment)) next.push(position + 1);
    }
    if (next.length === 0) return false;
    positions = withEmptyStars(parts, next);
  }
  return positions.includes(parts.length);
}

function withEmptyStars(parts, positions) {
  const all = new Set(positions);
  for (const position of all) {
    if (position < parts.length && parts[position].stars) all.add(position + 1);
  }
  return [...all];
}

// ------------------------------------------------------------------ one segment

function fits(part, name) {
  let found = part.cache.get(name);
  if (found === undefined) {
    found = name === ":" ? part.namesStack : endsOfAll(part.elements, name, [0]).includes(name.length);
    part.cache.set(name, found);
  }
  return found;
}

// Where a match of all elements that begins at one of the starts can end, each position once.
function endsOfAll(elements, name, starts) {
  let positions = starts;
  for (const element of elements) {
    const ends = new Set();
    for (const start of positions) addEnds(element, name, start, ends);
    positions = [...ends];
    if (positions.length === 0) break;
  }
  return positions;
}

function addEnds(element, name, start, ends) {
  if (element.text !== undefined) {
    if (name.startsWith(element.text, start)) ends.add(start + element.text.length);
  } else if (element.star) {
    for (let end = start; end <= name.length; end += 1) ends.add(end);
  } else if (element.braces) {
    for (const elements of element.braces) {
      for (const end of endsOfAll(elements, name, [start])) ends.add(end);
    }
  } else if (element.low !== undefined) {
    addNumbers(element, name, start, ends);
  } else {
    addCharacter(element, name, start, ends);
  }
}

function addNumbers(range, name, start, ends) {
  const digits = /^[0-9]{1,18}/.exec(name.slice(start, start + 18))?.[0] ?? "";
  for (let length = 1; length <= digits.length; length += 1) {
    const hasZeroInFront = length > 1 && digits[0] === "0";
    const isWritten = range.width ? length === range.width : !hasZeroInFront;
    const number = Number(digits.slice(0, length));
    if (isWritten && number >= range.low && number <= range.high) ends.add(start + length);
  }
}

function addCharacter(element, name, start, ends) {
  const code = name.codePointAt(start);
  if (code === undefined) return;
  const isInside = !element.any && element.ranges.some(([low, high]) => low <= code && code <= high);
  if (element.any || isInside !== element.negated) ends.add(start + (code > 0xffff ? 2 : 1));
}
