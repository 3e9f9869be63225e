"""Run the command plan: where the parameters of a file live on the devices of a mesh, from its header alone."""

from __future__ import annotations

import argparse
import re
import sys

from jax.sharding import AbstractMesh

from .. import shard
from .._errors import FileError
from .._words import printable, printable_path
from ..look._sources.source_of import source_of
from .damage import code_of_files, code_of_leaves
from .output import refuse_existing, write
from .sharding_rules_file import rules_in, write_rules
from .shown_plan import ShownPlan
from .tree_of_shapes import tree_of_shapes


def run_plan(given: argparse.Namespace) -> int:
    _check_options(given)
    mesh = AbstractMesh(tuple(given.mesh.values()), tuple(given.mesh))
    rules = None if given.auto else rules_in(given.rules)
    with source_of(given.file) as source:
        tree, left_out = tree_of_shapes(source)
        code = code_of_files(source) or code_of_leaves(source, source.leaves)
    for info in left_out:
        print(f"ptree: {printable_path(info.path)} is not in the plan: {printable(info.problem)}", file=sys.stderr)
    if rules is None:
        options = {} if given.min_size is None else {"min_size": given.min_size}
        try:
            rules = shard.auto(tree, mesh, axes=given.axes, kernels=given.kernels, **options)
        except shard.ShardingError as error:
            raise shard.ShardingError(_with_options(str(error))) from error
    plan = shard.plan(tree, rules, mesh, otherwise="replicate" if given.replicate else "error")
    if given.out is not None:
        write_rules(given.out, rules)
    write(ShownPlan(plan, rules), given)
    return code


def _with_options(message: str) -> str:
    """The message of an error of `auto`, which names an argument of Python, with the option of the command."""
    named = re.sub(r'axes=\{"(\w+)": "([^"]*)"\}', r"--axes \1=\2", message)
    return named.replace("axes=:", "--axes:")


def _check_options(given: argparse.Namespace) -> None:
    options = {"--min-size": given.min_size, "--axes": given.axes, "--kernels": given.kernels, "--out": given.out}
    without_effect = [name for name, value in options.items() if value is not None]
    if without_effect and not given.auto:
        raise FileError(f"{', '.join(without_effect)}: only with --auto, and with --rules without effect")
    if given.out is not None:
        refuse_existing(given.out)
