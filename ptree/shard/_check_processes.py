"""check_processes: whether all processes of a mesh have the same plan, before one of them waits for the others for ever."""

from __future__ import annotations

from .._shardings import Plan, check_is_plan, check_plan_in_processes


def check_processes(plan: Plan, *, timeout: float = 300.0) -> None:
    """Raise in every process if the plan of one differs from that of the first, with the process, the path and both rules.

    >>> import jax, ptree as pt
    >>> from jax.sharding import PartitionSpec as P
    >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
    >>> check_processes(pt.shard.plan({"w": pt.Param((64, 8))}, P("data"), mesh))           # one process agrees with itself

    `place`, `init(shardings=plan)`, `load(shardings=plan)` and the first call of a `ptree.train.step` do this themselves; it is for
    functions that are given `plan.shardings`. All processes of the mesh must call it. They compare texts in the key-value
    store of `jax.distributed`, without any device, in some milliseconds.

    Args:
        plan: that of this process.
        timeout: how many seconds to wait for the plans of the others.

    Raises:
        StructureError: meshes, trees, specs or rules differ; or a process has not come in time, as it has raised an error
            before, or takes another way through the program.
    """
    check_is_plan(plan, "check_processes(plan)")
    check_plan_in_processes(plan, timeout=timeout)
