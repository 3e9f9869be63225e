"""All benchmarks in the order of the tables: what each measures, and its arguments in full, quickly, and at its smallest."""

from typing import NamedTuple


class Headline(NamedTuple):
    """The rows that tell most about a benchmark: all that were measured beside ptree, so that none is left out."""

    text: str
    """What was measured, for a reader who sees these rows alone."""
    what: str
    """What the rows say, or several with `|` between them: those of the largest ratio are shown."""
    size: str = ""
    """All sizes are looked at, if it is empty; those of the largest ratio are shown."""
    way: str = ""
    """The way to use ptree, where there are several; that of the first row, if it is empty."""


class Benchmark(NamedTuple):
    title: str
    about: str
    """What is measured and how the results are checked to be equal, in a sentence."""
    script: str
    headlines: tuple[Headline, ...] = ()
    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    """Fewer rounds and sizes: minutes where all of it takes an hour."""
    smallest: tuple[str, ...] = ()
    """Whatever runs through in seconds: it shows that the script works, and measures nothing."""
    environment: tuple[tuple[str, str], ...] = ()
    packages: tuple[str, ...] = ()
    """What it needs beside the extra `test`."""
    for_contributors: bool = False
    """Whether it is of the code rather than of what users pay: its table comes last."""


SMALLEST_TURNS = ("--rounds", "1", "--turns", "1", "--sizes", "1", "--who", "ptree", "by hand")

BENCHMARKS: dict[str, Benchmark] = {
    "imports": Benchmark(
        "Importing",
        "The CPU time of `import ptree` after `import jax`, in fresh processes.",
        "imports.py",
        (Headline("`import ptree`, after `import jax`", "`import ptree` after `import jax`"),),
        smallest=("--rounds", "1"),
    ),
    "dispatch": Benchmark(
        "A Tree as an argument",
        "The same jitted functions of a Tree and of nested dicts, whose results are compared first. `flat` has a node for every two"
        " leaves, `deep` has four levels. `dispatch` returns one number, `in and out` the whole tree.",
        "dispatch.py",
        (
            Headline(
                "calling a jitted function that takes a Tree and returns a number", "dispatch, flat|dispatch, deep"
            ),
            Headline("calling one that returns the whole Tree", "in and out, flat|in and out, deep"),
        ),
        quick=("--rounds", "20"),
        smallest=("--rounds", "1", "--leaves", "16"),
    ),
    "paths": Benchmark(
        "Paths",
        "The CPU time of naming, selecting, reading, writing and editing by path. Results are compared first.",
        "paths.py",
        (
            Headline("every path of a dict of 1,000 leaves", "naming", "1,000 leaves", "a dict"),
            Headline("a mask of a dict by a pattern", "mask of these", way="a dict"),
        ),
        quick=("--rounds", "3"),
        smallest=("--rounds", "1", "--leaves", "120"),
    ),
    "init": Benchmark(
        "Initialising",
        "GPT-2 small, 124 M parameters in 148 leaves, from nothing to ready arrays in a fresh process, compile time included."
        " Shapes, standard deviations and constants are checked. `all numbers as one array` draws as many numbers in one call.",
        "init.py",
        (Headline("initialising GPT-2 small in a fresh process", "GPT-2 small"),),
        quick=("--rounds", "1"),
        smallest=("gpt2", "--rounds", "1", "--shrink", "16", "--frameworks", "Haiku"),
    ),
    "ties": Benchmark(
        "Tied parameters",
        "A model whose output layer is its transposed embedding, and whose decoder has the blocks of its encoder. `by hand` has one"
        " leaf for each shared array; the others share in the way of their library. Losses and gradients are compared first.",
        "ties.py",
        (Headline("step of Adam with tied parameters", "step of Adam"),),
        quick=("--rounds", "8"),
        packages=("torch",),
        smallest=("--rounds", "1", "--shrink", "8"),
    ),
    "transformer": Benchmark(
        "A deep transformer",
        "A GPT of pre-norm blocks of width 128, one step of Adam. Each library runs in its own process, and they take turns; the"
        " losses of the first five steps are compared.",
        "transformer.py",
        (Headline("step of Adam, a GPT of 24 blocks, not stacked", "step of Adam", "24 blocks", "ptree"),),
        full=("--rounds", "2", "--sizes", "6", "12", "24"),  # by hand, Equinox and Haiku compile for minutes at 48
        quick=("--rounds", "1", "--sizes", "6", "24"),
        smallest=SMALLEST_TURNS,
    ),
    "mlp": Benchmark(
        "Small layers",
        "An MLP of layers of width 32, where dispatch dominates. Each library runs in its own process, and they take turns; the"
        " losses of the first five steps are compared.",
        "mlp.py",
        quick=("--rounds", "1"),
        smallest=SMALLEST_TURNS,
    ),
    "convnet": Benchmark(
        "A convolutional network",
        "A ResNet in training with running statistics. Each library runs in its own process, and they take turns; the losses of the"
        " first five steps are compared.",
        "convnet.py",
        (Headline("step of Adam, a ResNet of 9 blocks", "step of Adam", "9 blocks"),),
        quick=("--rounds", "1"),
        smallest=("--rounds", "1", "--turns", "1", "--sizes", "3", "--who", "ptree", "by hand"),
    ),
    "decode": Benchmark(
        "Decoding",
        "A GPT with a cache of 256 places generates one token after the other. Each library runs in its own process, and they take"
        " turns; all must generate the same tokens.",
        "decode.py",
        (Headline("a token of a GPT of 24 blocks with a cache", "token", "24 blocks", "ptree"),),
        quick=("--rounds", "1"),
        smallest=SMALLEST_TURNS,
    ),
    "train": Benchmark(
        "Training",
        "The CPU time of steps of AdamW, the least of several in random order: alone, in microbatches, with options of the step,"
        " with frozen leaves and with low-rank factors. Losses, gradients and final parameters are compared first.",
        "train.py",
        (
            Headline("step of AdamW, 4 layers of width 1024", "a step of 4 layers of width 1024, 256 rows"),
            Headline("step of AdamW, 4 layers of width 32", "a step of 4 layers of width 32, 16 rows"),
            Headline(
                "memory of the gradient of low-rank factors (`merged`: ptree, the sum first; `all ...`: the full gradient)",
                "gradient of factors of all kernels, temporary memory",
            ),
        ),
        quick=("--rounds", "5"),
        smallest=("accumulate", "carry", "--rounds", "1", "--shrink", "32"),
    ),
    "shard": Benchmark(
        "Many devices",
        "A step of AdamW placed by rules on virtual devices of the CPU, in CPU time of all threads; losses are compared first. And"
        " plans of large models, for which nothing is allocated.",
        "shard.py",
        (Headline("step of AdamW, sharded by a plan, virtual devices", "step of AdamW"),),
        quick=("--rounds", "1", "--turns", "5"),
        smallest=(
            *("--rounds", "1", "--turns", "1", "--sizes", "2", "--shrink", "64"),
            *("--who", "ptree", "JAX, NamedSharding by hand"),
        ),
    ),
    "files": Benchmark(
        "Files",
        "GPT-2 small, 498 MB in 148 leaves, from and to ready arrays: saved with `fsync`, and loaded from the page cache. What is"
        " loaded is compared with what was saved.",
        "files.py",
        (
            Headline("saving 498 MB", "save"),
            Headline("loading 498 MB from the page cache", "load"),
        ),
        quick=("--turns", "3"),
        smallest=("--rounds", "1", "--turns", "1", "--sizes", "1", "--who", "ptree", "plain bytes", "np.savez"),
    ),
    "files-in-memory": Benchmark(
        "Files in memory",
        "The same with files in a file system in memory (tmpfs).",
        "files.py",
        (Headline("saving 498 MB to memory (tmpfs)", "save"), Headline("loading it", "load")),
        quick=("--turns", "3"),
        smallest=("--rounds", "1", "--turns", "1", "--sizes", "1", "--who", "ptree", "plain bytes"),
        environment=(("TMPDIR", "/dev/shm"),),
    ),
    "look": Benchmark(
        "Looking",
        "The CPU time of statistics, observation, tables, differences and reports, the least of several turns. The numbers are"
        " compared with those by hand first.",
        "look.py",
        (
            Headline("a step of 1,024 tokens with `look.observe`", "a step of Adam on 1,024 tokens, observed"),
            Headline(
                "comparing two files of 498 MB, all numbers changed", "diff of two files of 498 MB, all numbers changed"
            ),
        ),
        quick=("--rounds", "5"),
        packages=("torch",),
        smallest=("--rounds", "1", "--shrink", "64"),
    ),
    "convert": Benchmark(
        "Converting",
        "The CPU time, the least of several turns, of reading files of PyTorch into JAX, converting GPT-2 small by its published"
        " names, and writing it as ONNX. All numbers are compared first.",
        "convert.py",
        (
            Headline(
                "reading a `.pt` of 500 MB, compared with checksums",
                "`.pt` of 500 MB in 100 arrays, into JAX, compared with checksums",
            ),
            Headline("writing GPT-2 small as ONNX", "GPT-2 small as ONNX"),
        ),
        quick=("--turns", "2"),
        packages=("torch",),
        smallest=("--turns", "1", "--shrink", "64"),
    ),
    "shape": Benchmark(
        "The shape of the code",
        "Counts that say how easy the code is to read. The file of results has the same counts of other libraries.",
        "shape.py",
        for_contributors=True,
    ),
}
