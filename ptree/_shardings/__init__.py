"""Shardings: where each leaf of a tree lives on the devices of a mesh, found by rules and checked."""

from .processes import check_same_in_processes as check_same_in_processes
from .processes import mesh_text as mesh_text
from .shardings import Shardings as Shardings
from .shardings import constrained as constrained
from .shardings import placement as placement
from .shardings import shardings_for as shardings_for
