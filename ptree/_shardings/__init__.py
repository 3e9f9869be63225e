"""Shardings: where each leaf of a tree lives on the devices of a mesh, found by rules and checked."""

from .following import Followed as Followed
from .following import following as following
from .meshes import AnyMesh as AnyMesh
from .meshes import ShardingError as ShardingError
from .meshes import mesh_for_plan as mesh_for_plan
from .placement import constrained as constrained
from .placement import deleted as deleted
from .placement import in_one_spelling as in_one_spelling
from .placement import placement as placement
from .placement import put as put
from .plan import Plan as Plan
from .plan import check_is_plan as check_is_plan
from .planned_leaves import Otherwise as Otherwise
from .planned_leaves import PlannedLeaf as PlannedLeaf
from .planned_leaves import array_leaves as array_leaves
from .planned_leaves import itemsize as itemsize
from .planned_leaves import planned_leaves as planned_leaves
from .processes import check_plan_in_processes as check_plan_in_processes
from .processes import check_same_in_processes as check_same_in_processes
from .processes import mesh_text as mesh_text
from .requests import Request as Request
from .requests import requests as requests
from .requests import requests_by_rules as requests_by_rules
from .shardings import Shardings as Shardings
from .shardings import shardings_for as shardings_for
from .specs import part_shape as part_shape
