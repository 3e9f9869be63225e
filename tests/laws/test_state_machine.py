"""Random sequences of operations on a tree with ties and stacks, beside the flat dict of `leaf_model.py`.

After each operation every name, every value, which names share a leaf, and every single layer of a stack must be as in the
reference. The long run is in `conftest.py`.
"""

import copy
import pickle
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from leaf_model import Model
from trees import equal

import ptree as pt
from ptree import initializers as I

SHAPES = [(2,), (2, 2), (2, 3)]
LEAVES = ["a", "b", "k", "w"]
NODES = ["m", "n", "p"]


def numbers(shape, start):
    return (np.arange(np.prod(shape), dtype=np.float32) + start).reshape(shape)


def block(start):
    return {"a": numbers((2,), start), "w": numbers((2, 2), start + 10), "b": {"k": numbers((2, 2), start + 20)}}


class TreeMachine(RuleBasedStateMachine):
    """A tree, and what the reference says of it."""

    def __init__(self):
        super().__init__()
        self.model = Model()
        self.tree = pt.Tree()
        self.written = 100
        self.before = None

    # ------------------------------------------------------------------ what the operations use

    def fresh(self, shape):
        self.written += 1
        return numbers(shape, self.written % 1000)

    def names(self, of=lambda name: True):
        return [name for name in sorted(self.model.names) if of(name)]

    def pick(self, data, of=lambda name: True):
        """One of the names that fit, or None."""
        found = self.names(of)
        return data.draw(st.sampled_from(found)) if found else None

    def pick_node(self, data, of=lambda node: True):
        found = [node for node in self.model.nodes() if of(node)]
        return data.draw(st.sampled_from(found)) if found else None

    def source_of(self):
        """Alias -> the name that owns the leaf, as the tree says; that both share one is checked by the reference."""
        return {alias: tie if isinstance(tie, str) else tie.source for alias, tie in pt.ties(self.tree).items()}

    def refused(self, call, *args):
        """The call raises an error of ptree's own, and the tree is as it was."""
        leaves, structure = jax.tree.leaves(self.tree), jax.tree.structure(self.tree)
        try:
            call(*args)
        except pt.PtreeError as error:
            assert str(error)
        else:
            raise AssertionError(f"{call} took {args}")
        assert jax.tree.structure(self.tree) == structure
        assert all(a is b for a, b in zip(leaves, jax.tree.leaves(self.tree), strict=True))

    def unshared_node(self, node):
        """Whether a new name at the node is one name of one leaf."""
        is_stack = self.model.children(node) == [":"] or ":" in node.split("/")
        return not is_stack and not any(self.model.is_shared(name) for name in self.model.below(node))

    def is_free(self, path):
        """Whether nothing is at the path, and no leaf above it."""
        segments = path.split("/")
        above = ["/".join(segments[:cut]) for cut in range(1, len(segments) + 1)]
        return not self.model.below(path) and not any(name in self.model.names for name in above)

    def is_turned(self, name, owner):
        return self.model.names[name].turned != self.model.names[owner].turned

    # ------------------------------------------------------------------------------- the start

    @initialize(layers=st.integers(1, 3), tied=st.booleans())
    def start(self, layers, tied):
        mapping = {
            "n": {str(at): block(30 * at) for at in range(layers)},
            "m": block(200),
            "p": {"a": numbers((2,), 5)},
        }
        self.tree = pt.Tree(mapping | {"w": numbers((2, 2), 7)})
        for name, value in pt.items(self.tree):
            self.model.add(name, value)
        if tied:
            self.tree = pt.tie(self.tree, {"w": "m/w"})
            self.model.share("w", "m/w", False, ["w"])

    # -------------------------------------------------------------------------------- reading

    @rule(data=st.data())
    def get_reads_a_node(self, data):
        node = self.pick_node(data)
        if node is not None:
            found = dict(pt.items(pt.get(self.tree, node), aliases=True))
            assert sorted(found) == sorted(name[len(node) + 1 :] for name in self.model.below(node))
            for name, value in found.items():
                np.testing.assert_array_equal(value, self.model.value(f"{node}/{name}"))

    @rule(data=st.data())
    def items_of_a_node_are_those_of_its_leaves(self, data):
        node = self.pick_node(data, lambda node: ":" not in node.split("/"))
        if node is not None:
            cells = {self.model.names[name].cell for name in self.model.below(node)}
            found = pt.paths(self.tree, node)
            assert {self.model.names[name].cell for name in found} == cells
            assert len(found) == len(cells)

    @rule()
    def count_counts_each_leaf_once(self):
        assert pt.count(self.tree) == sum(value.size for value in self.model.cells.values())

    @rule(data=st.data())
    def mask_and_label_mark_the_leaf_by_any_name(self, data):
        name = self.pick(data)
        if name is not None:
            mask, labels = pt.mask(self.tree, name), pt.label(self.tree, {name: 1}, default=0)
            for other, entry in self.model.names.items():
                is_leaf = entry.cell == self.model.names[name].cell
                assert mask[other] is is_leaf
                assert labels[other] == int(is_leaf)

    @rule(data=st.data())
    def select_keeps_the_chosen_leaves_only(self, data):
        name = self.pick(data)
        if name is not None:
            assert sorted(pt.paths(pt.select(self.tree, name), aliases=True)) == sorted(self.model.sharers(name))

    @rule()
    def leaves_come_in_the_order_of_the_plain_dict(self):
        if not pt.ties(self.tree):
            plain = jax.tree.leaves(pt.asdict(self.tree))
            assert all(a is b for a, b in zip(jax.tree.leaves(self.tree), plain, strict=True))

    @rule(data=st.data())
    def what_is_not_there_is_refused(self, data):
        name = self.pick(data)
        stack = self.pick_node(data, lambda node: self.model.children(node) == [":"])
        if stack is not None:
            self.refused(pt.put, self.tree, f"{stack}/a", 1)
        self.refused(pt.get, self.tree, "not/there")
        self.refused(pt.set, self.tree, "not/there", 1)
        self.refused(pt.drop, self.tree, "not/there")
        self.refused(pt.tie, self.tree, {"not": "there"})
        if name is not None:
            self.refused(pt.put, self.tree, f"{name}/below", 1)
            self.refused(pt.set, self.tree, name, numbers((7,), 0))

    # -------------------------------------------------------------------------------- writing

    @rule(data=st.data())
    def set_writes_the_leaf(self, data):
        name = self.pick(data)
        if name is not None:
            value = self.fresh(self.model.shape(name))
            self.tree = pt.set(self.tree, name, value)
            self.model.write(name, value)

    @rule(data=st.data())
    def set_writes_one_element(self, data):
        name = self.pick(data)
        if name is not None:
            value = self.model.value(name).copy()
            at = tuple(data.draw(st.integers(0, size - 1)) for size in value.shape)
            value[at] = self.written = self.written + 1
            self.tree = pt.set(self.tree, name, np.float32(value[at]), at=at)
            self.model.write(name, value)

    @rule(data=st.data())
    def set_writes_one_layer(self, data):
        layers = self.model.numbered()
        if layers:
            path = data.draw(st.sampled_from(sorted(layers)))
            name = self.name_of_layer(path)
            self.tree = pt.set(self.tree, path, self.fresh(layers[path].shape))
            self.model.write(name, self.with_layer(name, path, numbers(layers[path].shape, self.written % 1000)))

    def name_of_layer(self, path):
        """The stacked leaf of a path with numbers."""
        for name in self.model.names:
            pairs = list(zip(name.split("/"), path.split("/"), strict=False))
            if len(name.split("/")) == len(path.split("/")) and all(a in (b, ":") for a, b in pairs):
                return name
        raise AssertionError(path)

    def with_layer(self, name, path, value):
        index = []
        for whole, part in zip(name.split("/"), path.split("/"), strict=True):
            if whole == ":":
                index.append(slice(None) if part == ":" else int(part))
        new = self.model.value(name).copy()
        new[tuple(index)] = value
        return new

    @rule(data=st.data())
    def update_changes_the_leaf_once(self, data):
        name = self.pick(data)
        if name is not None:
            self.tree = pt.update(self.tree, name, lambda leaf: leaf + 1)
            self.model.write(name, self.model.value(name) + 1)

    @rule()
    def update_changes_every_leaf_once(self):
        if self.model.names:
            self.tree = pt.update(self.tree, "**", lambda leaf: leaf * 2 % 1009)
            for cell, value in self.model.cells.items():
                self.model.cells[cell] = value * 2 % 1009

    @rule(data=st.data())
    def update_changes_a_range_of_layers(self, data):
        node = self.pick_node(data, lambda node: self.model.children(node) == [":"] and ":" not in node.split("/"))
        if node is None:
            return
        name = data.draw(st.sampled_from(self.model.below(node)))
        value = self.model.value(name).copy()
        rest = name[len(node) + 2 :]
        if ":" in rest.split("/"):
            return
        last = data.draw(st.integers(0, len(value) - 1))
        self.tree = pt.update(self.tree, f"{node}/{{0..{last}}}{rest}", lambda leaf: leaf + 3)
        value[: last + 1] += 3
        self.model.write(name, value)

    @rule(data=st.data())
    def put_at_a_leaf_ends_the_tie_of_an_alias(self, data):
        name = self.pick(data)
        if name is None:
            return
        value = self.fresh(self.model.shape(name))
        if name in pt.ties(self.tree):
            self.model.separate(name)
        self.tree = pt.put(self.tree, name, value)
        self.model.write(name, value)

    @rule(data=st.data(), leaf=st.sampled_from(LEAVES), shape=st.sampled_from(SHAPES))
    def put_adds_a_leaf(self, data, leaf, shape):
        node = self.pick_node(data, self.unshared_node)
        path = f"{node}/{leaf}" if node else leaf
        if self.is_free(path):
            value = self.fresh(shape)
            self.tree = pt.put(self.tree, path, value)
            self.model.add(path, value)

    @rule(data=st.data(), new=st.sampled_from(NODES), nested=st.booleans())
    def put_adds_a_subtree(self, data, new, nested):
        node = self.pick_node(data, self.unshared_node) if nested else None
        path = f"{node}/{new}" if node else new
        if self.is_free(path) and len(self.model.names) < 40 and path.count("/") < 5:
            self.written += 30
            subtree = block(self.written % 1000)
            self.tree = pt.put(self.tree, path, subtree)
            for name, value in pt.items(subtree):
                self.model.add(f"{path}/{name}", value)

    @rule(data=st.data(), layers=st.integers(1, 3), new=st.sampled_from(NODES))
    def put_adds_numbered_layers(self, data, layers, new):
        if self.is_free(new) and len(self.model.names) < 40:
            subtree = {str(at): block(at) for at in range(layers)}
            self.tree = pt.put(self.tree, new, subtree)
            for name, value in pt.items(subtree):
                self.model.add(f"{new}/{name}", value)

    # ------------------------------------------------------------------------------- structure

    @rule(data=st.data())
    def drop_takes_one_name(self, data):
        name = self.pick(data)
        if name is not None:
            self.tree = pt.drop(self.tree, name)
            self.model.remove(name)

    @rule(data=st.data())
    def drop_takes_a_node(self, data):
        node = self.pick_node(data, lambda node: ":" not in node.split("/"))
        if node is not None:
            self.tree = pt.drop(self.tree, node)
            for name in self.model.below(node):
                self.model.remove(name)

    @rule(data=st.data(), new=st.sampled_from(LEAVES))
    def rename_moves_a_leaf(self, data, new):
        name = self.pick(data)
        if name is not None:
            target = "/".join([*name.split("/")[:-1], new])
            if self.is_free(target) and name.split("/")[-1] != ":":
                self.tree = pt.rename(self.tree, {name: target})
                self.model.rename(name, target)

    @rule(data=st.data(), new=st.sampled_from(NODES))
    def rename_moves_a_node(self, data, new):
        node = self.pick_node(data, lambda node: ":" not in node.split("/"))
        if node is not None and self.is_free(new):
            self.tree = pt.rename(self.tree, {node: new})
            for name in self.model.below(node):
                self.model.rename(name, new + name[len(node) :])

    @rule(data=st.data())
    def partition_and_merge_are_inverse(self, data):
        if self.model.names:
            chosen = data.draw(st.lists(st.sampled_from(self.names()), min_size=1, max_size=4))
            merged = pt.merge(*pt.partition(self.tree, chosen))
            assert equal(merged, self.tree)
            assert pt.paths(merged, aliases=True) == pt.paths(self.tree, aliases=True)
            self.tree = merged

    @rule()
    def unflatten_undoes_flatten(self):
        self.tree = pt.unflatten(pt.flatten(self.tree))

    @rule()
    def a_plain_dict_and_its_ties_are_the_tree(self):
        self.tree = pt.tie(pt.Tree(pt.asdict(self.tree)), pt.ties(self.tree))

    @rule()
    def a_tree_nested_in_another_keeps_its_ties(self):
        larger = pt.Tree({"model": self.tree, "other": {"x": np.ones(2)}})
        assert len(pt.ties(larger)) == len(pt.ties(self.tree))
        self.tree = larger["model"] if self.model.names else self.tree

    @rule()
    def merge_adds_another_tree(self):
        if self.is_free("z"):
            larger = pt.merge(self.tree, pt.Tree({"z": numbers((2,), 1)}))
            self.tree = pt.drop(larger, "z")

    # ------------------------------------------------------------------------------------ ties

    @rule(data=st.data(), turned=st.booleans())
    def tie_makes_two_leaves_one(self, data, turned):
        alias = self.pick(data, lambda name: ":" not in name.split("/"))
        if alias is None:
            return
        shape = self.model.shape(alias)[::-1] if turned else self.model.shape(alias)
        if turned and len(shape) != 2:
            return
        others = set(self.model.sharers(alias))
        source = self.pick(data, lambda name: name not in others and self.model.shape(name) == shape)
        if source is None or ":" in source.split("/"):
            return
        self.tie(alias, source, turned)

    def tie(self, alias, source, turned):
        """What was tied to the alias follows it to the new source."""
        if not turned and self.holds_a_transpose(alias, source):
            self.refused(pt.tie, self.tree, {alias: source})
            return
        follows = [alias, *(name for name, owner in self.source_of().items() if owner == alias)]
        with_alias = [name for name in follows if name in self.model.sharers(alias)]
        self.tree = pt.tie(self.tree, {alias: pt.transposed(source) if turned else source})
        self.model.share(alias, source, turned, with_alias)

    def holds_a_transpose(self, one, two):
        """Whether a leaf holds the transpose of another and not the same, as after `untie`: a tie without a transform is refused."""
        value, other = self.model.value(one), self.model.value(two)
        return value.ndim == 2 and np.array_equal(value.T, other) and not np.array_equal(value, other)

    @rule(data=st.data())
    def tie_makes_two_nodes_one(self, data):
        alias = self.pick_node(data, lambda node: self.unshared_node(node) and not self.stacks_below(node))
        if alias is None:
            return
        shapes = self.shapes_below(alias)
        source = self.pick_node(
            data, lambda node: self.are_apart(alias, node) and self.shapes_below(node) == shapes and ":" not in node
        )
        if source is None:
            return
        if any(self.holds_a_transpose(name, source + name[len(alias) :]) for name in self.model.below(alias)):
            self.refused(pt.tie, self.tree, {alias: source})
        else:
            self.tree = pt.tie(self.tree, {alias: source})
            for name in self.model.below(alias):
                self.model.share(name, source + name[len(alias) :], False, [name])

    def stacks_below(self, node):
        return any(":" in name.split("/") for name in self.model.below(node))

    def shapes_below(self, node):
        return {name[len(node) :]: self.model.shape(name) for name in self.model.below(node)}

    def are_apart(self, one, two):
        return not f"{one}/".startswith(f"{two}/") and not f"{two}/".startswith(f"{one}/")

    @rule(data=st.data())
    def untie_ends_one_tie(self, data):
        ties = pt.ties(self.tree)
        if ties:
            alias = data.draw(st.sampled_from(sorted(ties)))
            self.tree = pt.untie(self.tree, alias)
            self.model.separate(alias)

    @rule()
    def untie_ends_all_ties(self):
        for alias in pt.ties(self.tree):
            self.model.separate(alias)
        self.tree = pt.untie(self.tree)

    @rule(data=st.data())
    def ties_that_cannot_be_are_refused(self, data):
        node = self.pick_node(data)
        if node is not None:
            self.refused(pt.tie, self.tree, {node: f"{node}/{self.model.children(node)[0]}"})
        name = self.pick(data)
        other = self.pick(data, lambda other: self.model.shape(other) != self.model.shape(name))
        if other is not None:
            self.refused(pt.tie, self.tree, {name: other})

    # ---------------------------------------------------------------------------------- stacks

    @rule(data=st.data())
    def stack_makes_layers_one_or_is_refused(self, data):
        node = self.pick_node(data, lambda node: "0" in self.model.children(node))
        if node is None or any(self.model.names[name].turned for name in self.model.below(node)):
            return
        if self.model.cannot_stack(node, self.source_of()):
            self.refused(pt.stacks.stack, self.tree, node)
        else:
            self.tree = pt.stacks.stack(self.tree, node)
            self.model.stack(node)

    @rule(data=st.data())
    def unstack_makes_layers_of_one_or_is_refused(self, data):
        node = self.pick_node(data, lambda node: self.model.children(node) == [":"])
        if node is None:
            return
        if self.model.cannot_unstack(node):
            self.refused(pt.stacks.unstack, self.tree, node)
        else:
            self.tree = pt.stacks.unstack(self.tree, node)
            self.model.unstack(node)

    @rule()
    def scan_runs_over_each_layer(self):
        for node in self.model.nodes():
            if self.model.children(node) == [":"] and ":" not in node.split("/"):

                def step(total, layer):
                    return total + sum(leaf.sum() for leaf in jax.tree.leaves(layer)), None

                total, _ = pt.stacks.scan(step, jnp.float32(0), self.tree[node])
                cells = {self.model.names[name].cell for name in self.model.below(node)}
                expected = sum(self.model.cells[cell].sum() for cell in cells)
                np.testing.assert_allclose(total, expected, rtol=1e-5)

    # ------------------------------------------------------------------- what others do with it

    @rule()
    def jit_gives_it_back(self):
        self.tree = jax.jit(lambda tree: tree)(self.tree)

    @rule()
    def tree_map_sees_each_leaf_once(self):
        self.tree = jax.tree.map(lambda leaf: (leaf + 1) % 1009, self.tree)
        for cell, value in self.model.cells.items():
            self.model.cells[cell] = (value + 1) % 1009

    @rule()
    def grad_is_the_sum_over_all_names(self):
        names = self.names()
        grads = jax.grad(lambda tree: sum(((at + 1) * tree[name]).sum() for at, name in enumerate(names)) + 0.0)(
            jax.tree.map(jnp.asarray, self.tree)
        )
        for name in names:
            expected = sum(names.index(other) + 1 for other in self.model.sharers(name))
            np.testing.assert_array_equal(grads[name], np.full(self.model.shape(name), expected, np.float32))

    @rule()
    def eval_shape_keeps_the_structure(self):
        shapes = jax.eval_shape(lambda tree: tree, self.tree)
        assert pt.ties(shapes) == pt.ties(self.tree)
        assert all(shapes[name].shape == self.model.shape(name) for name in self.model.names)

    @rule()
    def an_optimiser_has_one_slot_for_each_leaf(self):
        optimiser = optax.sgd(1.0, momentum=0.9)
        state = optimiser.init(self.tree)
        assert len(jax.tree.leaves(state)) == len(self.model.cells)
        updates, _ = optimiser.update(jax.tree.map(np.ones_like, self.tree), state)
        self.tree = optax.apply_updates(self.tree, updates)
        for cell, value in self.model.cells.items():
            self.model.cells[cell] = value - 1

    @rule(data=st.data())
    def reinit_draws_the_leaf_again(self, data):
        owners = self.source_of()
        # through a transpose an initialiser's axes would be others: an error that names the source
        name = self.pick(data, lambda name: not self.is_turned(name, owners.get(name, name)))
        if name is not None:
            self.written += 1
            self.tree = pt.reinit(self.tree, jax.random.key(0), {name: I.constant(self.written % 1000)})
            self.model.write(name, np.full(self.model.shape(name), self.written % 1000, np.float32))

    @rule(data=st.data())
    def a_file_keeps_everything(self, data):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "t.safetensors"
            pt.save(file, self.tree)
            again = pt.load(file)
            assert equal(jax.tree.map(jnp.asarray, again), jax.tree.map(jnp.asarray, self.tree))
            assert equal(pt.load(file, like=self.tree), jax.tree.map(lambda leaf: leaf, self.tree)) or self.model.names
            pt.save(file, self.tree, expand_ties=True)
            self.tree = pt.load(file, like=self.tree)

    @rule()
    def pickle_and_copies_keep_everything(self):
        self.tree = pickle.loads(pickle.dumps(self.tree))
        self.tree = copy.deepcopy(copy.copy(self.tree))

    # ------------------------------------------------------------------- after each operation

    @invariant()
    def every_name_and_value_is_that_of_the_reference(self):
        found = dict(pt.items(self.tree, aliases=True))
        assert sorted(found) == sorted(self.model.names)
        for name, value in found.items():
            np.testing.assert_array_equal(value, self.model.value(name), err_msg=name)
            np.testing.assert_array_equal(self.tree[name], value, err_msg=name)

    @invariant()
    def names_share_a_leaf_where_the_reference_says_so(self):
        source_of = self.source_of()
        assert len(jax.tree.leaves(self.tree)) == len(self.model.cells)
        owners = {name: source_of.get(name, name) for name in self.model.names}
        for name, owner in owners.items():
            assert owner not in source_of, f"{owner} owns {name} and is an alias"
            assert sorted(self.model.sharers(name)) == sorted(other for other in owners if owners[other] == owner)

    @invariant()
    def every_single_layer_is_there(self):
        for path, value in self.model.numbered().items():
            np.testing.assert_array_equal(pt.get(self.tree, path), value, err_msg=path)

    @invariant()
    def the_tree_before_is_untouched(self):
        if self.before is not None:
            tree, leaves, values = self.before
            assert all(a is b for a, b in zip(jax.tree.leaves(tree), leaves, strict=True))
            for leaf, value in zip(leaves, values, strict=True):
                np.testing.assert_array_equal(leaf, value)
        leaves = jax.tree.leaves(self.tree)
        self.before = self.tree, leaves, [np.array(leaf) for leaf in leaves]


TestTreeMachine = TreeMachine.TestCase
TestTreeMachine.settings = settings(
    # 20 sequences, in the long run 4,000
    max_examples=settings.default.max_examples // 5,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
