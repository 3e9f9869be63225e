"""Plan where each leaf of a tree lives on many devices, by rules, before anything is allocated; place it, and what follows it."""

from .._shardings import Plan as Plan  # where each leaf of a tree lives on a mesh
from .._shardings import PlannedLeaf as PlannedLeaf  # one of its leaves, and what each device holds of it
from .._shardings import ShardingError as ShardingError  # what cannot be placed where it should be

# rules proposed
from ._auto.auto import auto as auto  # for a tree and a mesh: by size, and by the roles of layers
from ._auto.rules import Rules as Rules  # what auto gives: a dict that prints as one would write it
from ._check_processes import check_processes as check_processes  # whether all of them have the same plan
from ._like import like as like  # where a state lives: with the parameters that it is of
from ._place import place as place  # a tree onto devices, by a plan
from ._plan import plan as plan  # a plan by rules
