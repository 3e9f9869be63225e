"""Train by rules: optimisers by path, freezing that freezes, one step, state that follows parameters, low-rank views.

This room stands on `nn`, whose layers multiply with kernels that stand for others, and on `look`, which observes a step.
"""

# optimisers by path
from ._groups.frozen import FROZEN as FROZEN  # the value of a rule whose leaves are not trained
from ._groups.groups import Cohort as Cohort  # leaves that began together, and their optimiser's state
from ._groups.groups import Groups as Groups  # what groups gives
from ._groups.groups import GroupsState as GroupsState  # its state
from ._groups.groups import groups as groups  # an optimiser for each group of leaves
