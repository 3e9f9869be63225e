"""Draw a tied tree and its file: a small language model whose output is its embedding, transposed, and what a file holds of it.

`python examples/pictures/tied_tree.py` writes `tied_tree.svg` beside this script, or where `--out` says. Paths and shapes are those of a
real tree, and names, byte ranges and ties are read from the header of the file that `ptree.save` wrote of it. The widths in the
bar of data are to scale.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import jax
import numpy as np

import ptree as pt
from ptree import initializers as I

WIDTH = 800
LEFT, RIGHT = 24, 420
"""Where the tree and the header begin."""
MARGIN = 24
TOP, ROW, INDENT = 78, 28, 22
SHAPES_END = 338
BAR_HEIGHT = 52
SOURCE, ALIAS = "embed/table", "head/kernel"
COLOURS = {SOURCE: "tied", "embed/positions": "green", "blocks/:/up/kernel": "blue", "blocks/:/down/kernel": "violet"}

STYLE = """
  svg { --paper: #ffffff; --card: #f6f8fa; --line: #d0d7de; --ink: #1f2328; --soft: #59636e;
        --tied: #bc4c00; --green: #1a7f37; --blue: #0969da; --violet: #8250df; --on: #ffffff; }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --card: #161b22; --line: #3d444d; --ink: #f0f6fc; --soft: #9198a1;
          --tied: #ffa657; --green: #56d364; --blue: #79c0ff; --violet: #d2a8ff; --on: #0d1117; }
  }
  text { font: 15px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: var(--ink); }
  .title { font: 600 17px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
  .note { font: 15px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: var(--soft); }
  .soft { fill: var(--soft); }
  .end { text-anchor: end; }
  .middle { text-anchor: middle; }
  .on { fill: var(--on); }
  .bold { font-weight: 600; }
  .card { fill: var(--card); stroke: var(--line); }
  .branch { fill: none; stroke: var(--line); stroke-width: 1.5; }
  .tied { fill: var(--tied); } .green { fill: var(--green); } .blue { fill: var(--blue); } .violet { fill: var(--violet); }
  .link { fill: none; stroke-width: 2; }
  .halo { fill: none; stroke: var(--paper); stroke-width: 8; }
  .link.tied { stroke: var(--tied); } .link.green { stroke: var(--green); }
  .link.blue { stroke: var(--blue); } .link.violet { stroke: var(--violet); }
  .dashed { stroke-dasharray: 5 4; }
"""


def tied_model() -> pt.Tree:
    """A small language model: an embedding, four blocks in a stack, and an output that is the embedding, transposed."""
    block = {"up": {"kernel": pt.Param((64, 256))}, "down": {"kernel": pt.Param((256, 64))}}
    embed = {"table": pt.Param((1000, 64)), "positions": pt.Param((512, 64))}
    spec = pt.Tree({"embed": embed, "blocks": [block] * 4, "head": {"kernel": pt.transposed(SOURCE)}})
    spec = pt.stacks.stack(spec, "blocks")
    return pt.init(spec, jax.random.key(0), {"**": I.normal(0.02)})


@dataclass(frozen=True)
class FileFacts:
    """What the file says of itself."""

    size: int
    header_size: int
    ranges: dict[str, tuple[int, int]]
    """The bytes of each name, counted from the end of the header, in the order of the file."""
    ties: dict[str, list[object]]

    @property
    def data_size(self) -> int:
        return self.size - 8 - self.header_size


def facts_of(path: Path, tree: pt.Tree) -> FileFacts:
    """Read the header of a file, and compare its bytes with the leaves of the tree."""
    data = path.read_bytes()
    header_size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + header_size])
    metadata = json.loads(header.pop("__metadata__")["ptree"])
    ranges = {name: tuple(leaf["data_offsets"]) for name, leaf in header.items()}
    in_order = dict(sorted(ranges.items(), key=lambda item: item[1]))
    for name, (start, stop) in in_order.items():
        assert data[8 + header_size :][start:stop] == np.asarray(tree[name]).tobytes()
    assert [*in_order] == pt.paths(tree)
    return FileFacts(len(data), header_size, in_order, metadata["ties"])


@dataclass(frozen=True)
class Row:
    """One line of the drawn tree."""

    depth: int
    name: str
    path: str
    shape: str = ""


def rows_of(tree: pt.Tree) -> list[Row]:
    """The nodes and leaves of a tree, from top to bottom; aliases are leaves with the shape that they show."""
    rows: list[Row] = []
    drawn: set[str] = set()
    for path, leaf in pt.items(tree, aliases=True):
        names = path.split("/")
        for depth in range(len(names) - 1):
            node = "/".join(names[: depth + 1])
            if node not in drawn:
                drawn.add(node)
                rows.append(Row(depth, names[depth], node))
        rows.append(Row(len(names) - 1, names[-1], path, f"f32[{','.join(map(str, leaf.shape))}]"))
    return rows


# ------------------------------------------------------------------------------------ SVG


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def path_of(d: str, kind: str, more: str = "") -> str:
    return f'<path d="{d}" class="{kind}"{more}/>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{kind}"/>'


def drawn_tree(rows: list[Row], y_of: Mapping[str, float], layers: int) -> list[str]:
    """The nested names with their branches, and the shapes of leaves."""
    parts: list[str] = []
    for row in rows:
        y = y_of[row.path]
        x = LEFT + 16 + row.depth * INDENT
        above = row.path.rpartition("/")[0]
        if above:
            trunk = x - INDENT + 5
            parts.append(path_of(f"M{trunk:g} {y_of[above] + 8:g} V{y - 5:g} H{x - 4:g}", "branch"))
        colour = "tied" if row.path == ALIAS else COLOURS.get(row.path, "")
        parts.append(text(x, y, row.name, f"bold {colour}" if row.shape else ""))
        if row.shape:
            parts.append(text(SHAPES_END, y, row.shape, "end tied" if row.path == ALIAS else "end"))
        if row.name == ":":
            parts.append(text(x + 18, y, f"{layers} layers in one leaf each", "note"))
    return parts


def drawn_tie(y_of: Mapping[str, float]) -> list[str]:
    """An arrow from the alias to its source."""
    start, end = y_of[ALIAS] - 5, y_of[SOURCE] - 5
    x = SHAPES_END + 8
    curve = f"M{x} {start:g} C{x + 34} {start - 50:g} {x + 34} {end + 50:g} {x + 8} {end + 4:g}"
    return [
        path_of(curve, "halo"),
        path_of(curve, "link tied", ' marker-end="url(#arrow)"'),
        text(LEFT + 16 + INDENT, y_of[ALIAS] + ROW - 4, f"= transposed({SOURCE})", "tied"),
    ]


def drawn_header(file: FileFacts, y_of: Mapping[str, float], bottom: float) -> list[str]:
    """The names and byte ranges of the header, each beside its leaf, and the tie beside the alias."""
    end = WIDTH - MARGIN
    parts = [box(RIGHT, TOP - 32, end - RIGHT, bottom - TOP + 32, "card")]
    parts += [text(RIGHT + 12, TOP, "name", "note"), text(end - 10, TOP, "bytes of the data", "note end")]
    for name, (start, stop) in file.ranges.items():
        y = y_of[name]
        colour = COLOURS[name]
        parts.append(path_of(f"M{SHAPES_END + (22 if name == SOURCE else 8)} {y - 5:g} H{RIGHT}", f"link {colour}"))
        parts.append(f'<circle cx="{RIGHT}" cy="{y - 5:g}" r="4" class="{colour}"/>')
        parts.append(text(RIGHT + 12, y, name, f"bold {colour}"))
        parts.append(text(end - 10, y, f"{start:,}–{stop:,}", "end"))
    y = y_of[ALIAS]
    as_written = json.dumps(file.ties)[1:-1]
    first, _, second = as_written.partition(": ")
    parts.append(path_of(f"M{SHAPES_END + 22} {y - 5:g} H{RIGHT}", "link tied dashed"))
    parts.append(text(RIGHT + 12, y - ROW + 4, "metadata: ties", "note"))
    parts.append(text(RIGHT + 12, y, f"{first}:", "tied"))
    parts.append(text(RIGHT + 30, y + ROW - 6, second, "tied"))
    return parts


def drawn_data(file: FileFacts, y: float) -> list[str]:
    """The bar of data, to scale, with the places where the leaves begin."""
    parts: list[str] = []
    scale = (WIDTH - 2 * MARGIN) / file.data_size
    for name, (start, stop) in file.ranges.items():
        x, width = MARGIN + start * scale, (stop - start) * scale
        parts.append(
            f'<rect x="{x:.1f}" y="{y:g}" width="{width - 2:.1f}" height="{BAR_HEIGHT}" rx="3" class="{COLOURS[name]}"/>'
        )
        above, _, last = name.rpartition("/")
        parts.append(text(x + 10, y + 22, f"{above}/", "on"))
        parts.append(text(x + 10, y + 41, last, "on bold"))
        parts.append(text(x, y + BAR_HEIGHT + 20, f"{start:,}", "soft"))
    parts.append(text(WIDTH - MARGIN, y + BAR_HEIGHT + 20, f"{file.data_size:,}", "soft end"))
    return parts


def picture(tree: pt.Tree, file: FileFacts, name: str) -> str:
    """The whole picture, as the text of an SVG file."""
    rows = rows_of(tree)
    y_of = {row.path: TOP + at * ROW for at, row in enumerate(rows)}
    bottom = y_of[ALIAS] + ROW + 10
    bar = bottom + 66
    height = bar + BAR_HEIGHT + 36
    layers = tree["blocks/:/up/kernel"].shape[0]
    parts = [
        f'<rect width="{WIDTH}" height="{height:g}" rx="10" fill="var(--paper)"/>',
        text(LEFT, 34, "The tree", "title"),
        text(SHAPES_END, 34, f"{len(pt.paths(tree))} leaves, {len(file.ranges) + len(file.ties)} names", "note end"),
        text(RIGHT, 34, name, "title"),
        text(WIDTH - MARGIN, 34, f"header, {8 + file.header_size:,} bytes", "note end"),
        *drawn_tree(rows, y_of, layers),
        *drawn_header(file, y_of, bottom),
        *drawn_tie(y_of),
        text(MARGIN, bar - 14, "Stored once, read by both names", "title tied"),
        text(WIDTH - MARGIN, bar - 14, f"data, {file.data_size:,} bytes, to scale", "note end"),
        *drawn_data(file, bar),
    ]
    arrow = (
        '<marker id="arrow" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="5" markerHeight="5" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" class="tied"/></marker>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" role="img">'
    title = f"<title>A tied tree and its file: {ALIAS} is {SOURCE}, transposed, and stored once</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", f"<defs>{arrow}</defs>", *parts, "</svg>", ""])


def main() -> None:
    options = argparse.ArgumentParser(description="Draw a tied tree and its file.")
    options.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".svg"))
    out = options.parse_args().out
    tree = tied_model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lm.safetensors"
        pt.save(path, tree)
        out.write_text(picture(tree, facts_of(path, tree), path.name), encoding="utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
