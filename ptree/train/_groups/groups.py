"""groups: an optax transformation with an optimiser for each group of leaves, by rules; its state, in cohorts of leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import optax

from ..._edit import Rules, explain
from ..._edit.rules import Explanation
from ..._errors import PatternError, StructureError
from ..._shardings import refuse_deleted
from ..._tree import Leaf, PyTree, leaves, replace_leaves
from ..._words import describe, lines, listed, quoted
from .clipping import clipped
from .extra_arguments import arguments_of_part
from .frozen import FROZEN, no_update
from .leaf_groups import LeafGroup, Optimisers, check_rules_fit, leaf_groups, part_of, trained_groups
from .scaled import scaled
from .stack_warning import warn_of_stacks


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cohort:
    """Leaves of one rule that were first trained at the same step, and the state of the rule's optimiser for them.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> optimiser = train.groups({"embed": train.FROZEN, "**": optax.sgd(0.1)})
    >>> state = optimiser.init({"embed": jnp.ones(2), "head": jnp.ones(2)})
    >>> state.groups["**"][0].paths
    ('head',)

    A leaf that joins later, as it is no longer frozen, is in a cohort with a step count of its own.
    """

    state: PyTree
    """The optimiser's own state, of a tree that has these leaves alone."""
    paths: tuple[str, ...] = field(metadata={"static": True})
    """The paths of these leaves."""

    __module__ = "ptree.train"


class GroupsState(NamedTuple):
    """The state of `groups`: the cohorts of each rule that trains leaves, by the rule's pattern.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> optimiser = train.groups({"embed": train.FROZEN, "**": optax.sgd(0.1)})
    >>> state = optimiser.init({"embed": jnp.ones(2), "head": jnp.ones(2)})
    >>> list(state.groups)
    ['**']
    """

    groups: dict[str, tuple[Cohort, ...]]
    """Pattern of a rule -> its cohorts."""


GroupsState.__module__ = "ptree.train"


class Groups(optax.GradientTransformationExtraArgs):
    """An optax transformation that gives each leaf to the optimiser of one rule; `groups` makes it.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import train
    >>> optimiser = train.groups({"embed": train.FROZEN, "**": optax.sgd(0.1)})
    >>> optimiser.trained({"embed": jnp.ones(2), "head": jnp.ones(2)})
    ['head']
    """

    __module__ = "ptree.train"

    rules: Optimisers
    """Selector -> optimiser, or FROZEN."""
    clip: float | None
    """The largest norm of the gradients of all leaves that are trained."""

    factors: Rules | None
    """Selector -> what updates are multiplied with."""

    def __new__(cls, rules: Optimisers, *, clip: float | None = None, factors: Rules | None = None) -> Groups:
        scale = None if factors is None else scaled(factors)
        work = _Work(_checked_rules(rules), _checked_clip(clip), scale)
        made = super().__new__(cls, work.init, work.update)
        made.rules, made.clip, made.factors = work.rules, work.clip, factors
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.rules,), {"clip": self.clip, "factors": self.factors}

    def __repr__(self) -> str:
        return f"<Groups {listed(map(str, self.rules))}>"

    def trained(self, params: PyTree) -> list[str]:
        """The paths of the leaves that are trained, in listing order; a tied leaf once, by its own path.

        Args:
            params: the parameters, or their shapes.

        Raises:
            PatternError: the rules do not fit the parameters, as for `init`.
        """
        check_rules_fit(params, self.rules)
        trained: set[str] = set()
        for group in trained_groups(params, self.rules).values():
            trained.update(group.paths)
        return [path for path, _ in leaves(params) if path in trained]

    def explain(self, params: PyTree) -> Explanation:
        """Which rule applies to each leaf, as `ptree.explain`; print it for a table.

        Args:
            params: the parameters, or their shapes.
        """
        return explain(params, self.rules)


def groups(rules: Optimisers, *, clip: float | None = None, factors: Rules | None = None) -> Groups:
    """An optimiser of optax for each group of leaves: rules, selector -> optimiser or FROZEN; the first that matches wins.

    >>> import jax, jax.numpy as jnp
    >>> from ptree import Tree
    >>> params = Tree({"embed": jnp.ones((5, 4)), "dense": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}})
    >>> optimiser = groups({"embed": FROZEN, "**/bias": optax.sgd(0.1), "**": optax.adamw(3e-4)}, clip=1.0)
    >>> print(optimiser.explain(params))
    leaf          rule     shadowed
    embed         embed    **
    dense/kernel  **
    dense/bias    **/bias  **
    >>> state = optimiser.init(params)
    >>> len(jax.tree.leaves(state))                       # two moments of the kernel, and a step count
    3
    >>> updates, state = optimiser.update(jax.tree.map(jnp.ones_like, params), state, params)
    >>> params = optax.apply_updates(params, updates)
    >>> params["embed"].sum(), params["dense/bias"].round(3)
    (Array(20., dtype=float32), Array([-0.032, -0.032], dtype=float32))

    It is a transformation of optax. In an `optax.chain` with others these see the frozen leaves too, so that clipping, factors and
    accumulation belong inside: `clip=`, chains as values of rules, `ptree.train.step(..., accumulate=4)`. Frozen leaves have no slot, and their updates change no bit of them. The
    gradients may leave them out, as those of `ptree.train.value_and_grad` do: then no time is spent on them, and none of
    the updates is theirs. The optimiser of a rule sees a tree of its own leaves alone, under their paths.

    Args:
        rules: an ordered table. A selector is as everywhere in ptree; a tied leaf has all its names, and a stack is one
            leaf for all its layers.
        clip: the largest norm of the gradients of all leaves that are trained, taken together: larger ones are scaled down.
            Frozen leaves do not count, and tied leaves count once.
        factors: what updates are multiplied with, by rules as in `scaled`, such as those of `depth_factors`: rates by depth over
            all groups, frozen leaves included.

    Returns:
        The transformation, which has `trained(params)`, the paths of the leaves that are trained, and `explain(params)`.

    Raises:
        PatternError: the rules are no table of optimisers; from `init`: a rule that applies to no leaf, or single layers of a
            stack, leaves that no rule matches, an optimiser for leaves without floats, nothing that is trained.
        StructureError: from `update`: a state or gradients that do not fit the rules and the parameters.

    Warns:
        UserWarning: from `init`: an optimiser looks at ranks or norms and would update the layers of a stack otherwise if
            they were apart, see `by_layer`; or one inside of `by_layer` takes leaves together. To find out takes some
            hundredths of a second for elementwise optimisers, one or two seconds for others, and nothing without stacks.
    """
    return Groups(rules, clip=clip, factors=factors)


# ------------------------------------------------------------------------------- what is given


def _checked_rules(rules: Optimisers) -> dict[Any, optax.GradientTransformation]:
    """The rules with nothing but transformations of optax as values."""
    if not isinstance(rules, Mapping):
        raise PatternError(f"groups takes a dict, selector -> optimiser; got {describe(rules)}")
    checked: dict[Any, optax.GradientTransformation] = {}
    problems: list[str] = []
    for key, value in rules.items():
        if isinstance(value, optax.MultiSteps):
            value = value.gradient_transformation()
        if isinstance(value, Groups):
            problems.append(f"the rule {quoted(key)} has groups as its value: write their rules into these")
        elif not isinstance(value, optax.GradientTransformation):
            problems.append(
                f"the rule {quoted(key)} has {describe(value)} as its value: expected an optimiser of optax,"
                " such as optax.adamw(3e-4), or ptree.train.FROZEN"
            )
        checked[key] = value
    if problems:
        raise PatternError(lines(problems))
    return checked


def _checked_clip(clip: float | None) -> float | None:
    if clip is None or isinstance(clip, jax.Array):
        return clip
    if isinstance(clip, bool) or not isinstance(clip, int | float) or not clip > 0:
        raise PatternError(f"groups takes the largest norm of the gradients as clip=, above 0; got {quoted(clip)}")
    return clip


# -------------------------------------------------------------------------------------- the work


@dataclass(frozen=True)
class _Work:
    """The two functions of the transformation."""

    rules: dict[Any, optax.GradientTransformation]
    clip: float | None
    scale: optax.GradientTransformation | None
    """What multiplies the updates."""

    def init(self, params: PyTree) -> PyTree:
        check_rules_fit(params, self.rules)
        if self.scale is not None:
            self.scale.init(params)  # checks the factors, and keeps nothing
        cohorts: dict[str, tuple[Cohort, ...]] = {}
        for rule, group in trained_groups(params, self.rules).items():
            part = part_of(params, group.paths)
            warn_of_stacks(group.optimiser, part, rule, stacklevel=2)
            state = group.optimiser.init(part)
            cohorts[rule] = (Cohort(state, group.paths),)
        return GroupsState(cohorts)

    def update(self, updates: PyTree, state: PyTree, params: PyTree = None, **extra: Any) -> tuple[PyTree, PyTree]:
        try:
            return self._updated(updates, state, params, extra)
        except (RuntimeError, ValueError) as error:
            given = {"the gradients": updates, "the state": state, "the parameters": params}
            refuse_deleted(error, "update", given)
            raise

    def _updated(
        self, updates: PyTree, state: PyTree, params: PyTree, extra: Mapping[str, Any]
    ) -> tuple[PyTree, PyTree]:
        by_rule = leaf_groups(updates if params is None else params, self.rules)
        _check_state(state, by_rule)
        gradients = dict(leaves(updates))
        trained = _trained_paths(state)
        _check_gradients(gradients, trained, params)
        _check_have_rules(gradients, by_rule)
        if self.clip is not None:
            chosen = clipped(part_of(updates, trained), self.clip)
            updates = replace_leaves(updates, dict(leaves(chosen)))
        changes: dict[str, Leaf] = {}
        cohorts: dict[str, tuple[Cohort, ...]] = {}
        for rule, before in state.groups.items():
            optimiser = optax.with_extra_args_support(by_rule[rule].optimiser)
            after: list[Cohort] = []
            for cohort in before:
                arguments = arguments_of_part(extra, params, cohort.paths)
                part = part_of(updates, cohort.paths)
                own = None if params is None else part_of(params, cohort.paths)
                change, new = optimiser.update(part, cohort.state, own, **arguments)
                changes.update(leaves(change))
                after.append(Cohort(new, cohort.paths))
            cohorts[rule] = tuple(after)
        changes.update(_no_updates(gradients, {*trained}, params))
        changed = replace_leaves(updates, changes)
        if self.scale is not None:
            changed, _ = self.scale.update(changed, optax.EmptyState())
        return changed, GroupsState(cohorts)


def _trained_paths(state: GroupsState) -> tuple[str, ...]:
    return tuple(path for cohorts in state.groups.values() for cohort in cohorts for path in cohort.paths)


def _no_updates(gradients: Mapping[str, Leaf], trained: set[str], params: PyTree) -> dict[str, Leaf]:
    """The updates of the leaves that are not trained, of those that have a gradient."""
    values = {} if params is None else dict(leaves(params))
    found: dict[str, Leaf] = {}
    for path, gradient in gradients.items():
        if path not in trained:
            found[path] = no_update(values.get(path, gradient))
    return found


def _check_state(state: PyTree, by_rule: Mapping[str, LeafGroup]) -> None:
    """Raise unless the state has slots for the leaves that are trained, under the rules that train them."""
    if not isinstance(state, GroupsState):
        raise StructureError(
            f"cannot update: expected the state that groups(...).init(params) makes, got {describe(state)}"
        )
    expected = [
        (rule, path) for rule, group in by_rule.items() if group.optimiser is not FROZEN for path in group.paths
    ]
    got = [(rule, path) for rule, cohorts in state.groups.items() for cohort in cohorts for path in cohort.paths]
    missing, unexpected = {*expected}.difference(got), {*got}.difference(expected)
    twice = [path for (_, path), count in Counter(got).items() if count > 1]
    problems = [
        *_problem("in more than one cohort", twice),
        *_problem("trained by the rules, and not in the state", _with_rules(missing)),
        *_problem("in the state, and not trained by the rules", _with_rules(unexpected)),
    ]
    if problems:
        raise StructureError(
            lines(["cannot update: the state is of other groups:", *problems, "ptree.train.carry makes it fit"]),
            missing=sorted(path for _, path in missing),
            unexpected=sorted(path for _, path in unexpected),
        )


def _problem(text: str, paths: Sequence[str]) -> list[str]:
    return [f"{text}: {listed(paths)}"] if paths else []


def _with_rules(leaves: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{path} ({rule})" for rule, path in sorted(leaves)]


def _check_have_rules(gradients: Mapping[str, Leaf], by_rule: Mapping[str, LeafGroup]) -> None:
    """Raise for leaves that no rule matches: they would not be trained, in silence."""
    matched = {path for group in by_rule.values() for path in group.paths}
    unmatched = [path for path in gradients if path not in matched]
    if unmatched:
        raise StructureError(
            f"cannot update: no rule, or no parameter, for the gradients of {listed(unmatched)}", unexpected=unmatched
        )


def _check_gradients(gradients: Mapping[str, Leaf], trained: tuple[str, ...], params: PyTree) -> None:
    """Raise unless each leaf that is trained has a gradient of its shape."""
    missing = [path for path in trained if path not in gradients]
    values = {} if params is None else dict(leaves(params))
    problems: list[str] = []
    misshapen: list[str] = []
    if missing:
        problems.append(f"no gradient of {listed(missing)}")
    for path in trained:
        if path in gradients and path in values and gradients[path].shape != values[path].shape:
            misshapen.append(path)
            problems.append(f"{quoted(path)} is {describe(values[path])}, its gradient {describe(gradients[path])}")
    if problems:
        raise StructureError(
            lines(["cannot update: the gradients do not fit:", *problems]), missing=missing, misshapen=misshapen
        )
