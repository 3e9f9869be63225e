"""What is said of many or long patterns that match nothing: the work for it, and the length of the message."""

import jax
import pytest

import ptree as pt
from ptree._edit import hints

NAMES = [f"layer_{at}/{part}/{leaf}" for at in range(40) for part in "qkv" for leaf in ("kernel", "bias")]
TREE = pt.Tree(dict.fromkeys(NAMES, 1))
LONG = pt.Tree({f"{'x' * 3000}{at}": 1 for at in range(100)})

CALLS = {
    "explain": lambda tree, patterns: pt.explain(tree, dict.fromkeys(patterns, 1)),
    "label": lambda tree, patterns: pt.label(tree, dict.fromkeys(patterns, 1), default=0),
    "items": lambda tree, patterns: pt.items(tree, patterns),
    "mask": lambda tree, patterns: pt.mask(tree, patterns),
    "drop": lambda tree, patterns: pt.drop(tree, patterns),
    "rename": lambda tree, patterns: pt.rename(tree, dict.fromkeys(patterns, "x")),
    "tie": lambda tree, patterns: pt.tie(tree, dict.fromkeys(patterns, "layer_0/q/kernel")),
    "init": lambda tree, patterns: pt.init(tree, jax.random.key(0), dict.fromkeys(patterns, pt.initializers.zeros)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("pattern", ["**/kernl_{}", "layr_*/{{q,k}}/x{}", "layer_*/q{}/*", "layer_{}x/q/kernel"])
def test_fifty_misspelt_patterns_index_the_paths_of_a_tree_once(call, pattern, monkeypatch):
    made = []

    class Counted(hints.PathIndex):
        def __init__(self, paths):
            made.append(len(paths))
            super().__init__(paths)

    listed = []
    monkeypatch.setattr(hints, "PathIndex", Counted)
    monkeypatch.setattr(hints, "entries", lambda tree: listed.append(tree) or NAMES)
    tree = pt.Tree(dict.fromkeys(NAMES, pt.Param((2,)))) if call == "init" else TREE
    try:
        CALLS[call](tree, [pattern.format(at) for at in range(50)])
    except pt.PtreeError as error:
        assert "matches nothing" in str(error) or "there is no" in str(error)
    assert len(made) <= 1
    assert len(listed) <= 1


@pytest.mark.parametrize("call", [name for name in CALLS if name not in ("explain", "init")])
def test_messages_about_long_patterns_and_names_stay_short(call):
    patterns = [f"x{at}" * 3000 for at in range(30)]
    with pytest.raises(pt.PtreeError) as raised:
        CALLS[call](LONG, patterns)
    text = str(raised.value).splitlines()
    assert len(text) <= 12
    assert max(map(len, text)) <= 3000
    with pytest.raises(pt.PtreeError) as raised:
        CALLS[call](LONG, [f"{'{a*,*a}' * 3000}", "*?" * 2_000])
    assert len(str(raised.value)) <= 3000
