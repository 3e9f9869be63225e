"""Trees in treescope, with their ties and stacks; called by treescope, which is optional."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ..._paths import STACKED
from ..._tree import PyTree, Tie, Tree, entries
from ..._words import printable

Renderer = Any
"""treescope's function that renders what is below."""
Rendering = Any
"""treescope's parts of a page."""


def _parts() -> ModuleType:
    from treescope import rendering_parts  # which is imported already: treescope alone calls this

    return rendering_parts


def tree_rendering(tree: Tree, path: str | None, renderer: Renderer) -> Rendering:
    """A Tree as treescope shows it: nodes that fold, arrays in its own form, ties as the path of their source."""
    return _Node(_nested(tree), "", path).__treescope_repr__(path, renderer)


def _nested(tree: Tree) -> dict[str, PyTree]:
    """The leaves and ties of a tree as nested dicts."""
    nested: dict[str, PyTree] = {}
    for path, value in entries(tree).items():
        *above, name = path.split("/")
        node = nested
        for segment in above:
            node = node.setdefault(segment, {})
        node[name] = value
    return nested


class _Node:
    """A node of a tree, as treescope renders it."""

    def __init__(self, children: Mapping[str, PyTree], above: str, root: str | None):
        self.children, self.above, self.root = children, above, root
        """Its children; its own path in the tree; how the tree itself is written, such as `params`."""

    def __treescope_repr__(self, path: str | None, renderer: Renderer) -> Rendering:
        parts = _parts()
        children = [self._child(name, value, renderer) for name, value in self.children.items()]
        return parts.build_foldable_tree_node_from_children(
            prefix=parts.siblings(parts.maybe_qualified_type_name(Tree), "({"),
            children=children,
            suffix="})",
            comma_separated=True,
            path=path,
            first_line_annotation=self._layers(),
        )

    def _layers(self) -> Rendering | None:
        """How many layers are stacked in this node."""
        stack = self.children.get(STACKED)
        count = None if stack is None else _layer_count(stack, self.above.split("/").count(STACKED))
        if count is None:
            return None
        parts = _parts()
        return parts.comment_color(parts.text(f"  # {count} layers, stacked"))

    def _child(self, name: str, value: PyTree, renderer: Renderer) -> Rendering:
        below = f"{self.above}/{name}" if self.above else name
        path = None if self.root is None else f"{self.root}[{below!r}]"
        return _parts().siblings_with_annotations(f"{printable(name)!r}: ", self._value(value, below, path, renderer))

    def _value(self, value: PyTree, below: str, path: str | None, renderer: Renderer) -> Rendering:
        if isinstance(value, Tie):
            parts = _parts()
            return parts.build_one_line_tree_node(
                parts.comment_color(parts.text(f"= {printable(value.shown())}")), path
            )
        if type(value) is dict:
            return renderer(_Node(value, below, self.root), path=path)
        return renderer(value, path=path)


def _layer_count(node: PyTree, axis: int) -> int | None:
    """The size of the axis of layers of the first leaf below a node; None where no leaf has it."""
    if type(node) is dict:
        counts = (_layer_count(child, axis) for child in node.values())
        return next((count for count in counts if count is not None), None)
    shape = getattr(node, "shape", ())
    return shape[axis] if len(shape) > axis else None
