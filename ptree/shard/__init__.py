"""Plan where each leaf of a tree lives on many devices, by rules, before anything is allocated; place it, and what follows it."""

from ._auto.auto import auto as auto  # rules proposed for a tree and a mesh
from ._auto.rules import Rules as Rules  # what auto gives: a dict that prints as one would write it
