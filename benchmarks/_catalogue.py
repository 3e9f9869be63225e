"""All benchmarks in the order of the tables: what each measures, and its arguments in full, quickly, and at its smallest."""

from typing import NamedTuple


class Headline(NamedTuple):
    """The row that tells most about a benchmark: of those that fit, the one with the largest ratio, or the only one without."""

    text: str
    """What was measured, for a reader who sees this row alone."""
    what: str
    """What the row says, or several with `|` between them."""
    who: str = ""
    """A part of the name, or several with `|` between them: the largest ratio decides, so that the nearest peer is shown."""
    size: str = ""
    """All sizes are looked at, if it is empty."""


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


SMALLEST_TURNS = ("--rounds", "1", "--turns", "1", "--sizes", "1", "--who", "ptree", "by hand")

BENCHMARKS: dict[str, Benchmark] = {
    "imports": Benchmark(
        "Importing",
        "What `import ptree` takes after `import jax`, in seconds of the processor, in fresh processes.",
        "imports.py",
        (Headline("`import ptree`, after `import jax`", "`import ptree` after `import jax`"),),
        smallest=("--rounds", "1"),
    ),
    "dispatch": Benchmark(
        "A Tree as an argument",
        "Jitted functions of a Tree beside the same of nested dicts, whose results are equal: `flat` has a node for every two"
        " leaves, `deep` four levels.",
        "dispatch.py",
        (Headline("calling a jitted function with a Tree", "dispatch, flat|dispatch, deep", "nested dicts"),),
        quick=("--rounds", "20"),
        smallest=("--rounds", "1", "--leaves", "16"),
    ),
    "paths": Benchmark(
        "Paths",
        "Naming, selecting, reading, writing and editing by path in seconds of the processor, after all are checked to give the same.",
        "paths.py",
        (
            Headline("every path of 1,000 leaves", "naming", "flax flatten_dict", "1,000 leaves"),
            Headline("a mask of 1,000 leaves by a pattern", "mask of these", "flax", "1,000 leaves"),
        ),
        quick=("--rounds", "3"),
        smallest=("--rounds", "1", "--leaves", "120"),
    ),
    "init": Benchmark(
        "Initialising",
        "GPT-2 small, 124 M parameters in 148 leaves, from nothing to ready arrays in a fresh process, compile time included;"
        " shapes, spreads and constants are checked in each.",
        "init.py",
        (Headline("initialising GPT-2 small in a fresh process", "GPT-2 small", "linen|nnx|Equinox|Haiku"),),
        quick=("--rounds", "1"),
        smallest=("gpt2", "--rounds", "1", "--shrink", "16", "--frameworks", "Haiku"),
    ),
    "ties": Benchmark(
        "Tied parameters",
        "A model whose output is its embedding transposed and whose decoder's blocks are the encoder's, beside one leaf for each"
        " by hand and the peers' ways of sharing, after losses and gradients are checked to agree.",
        "ties.py",
        (Headline("step of Adam with tied parameters", "step of Adam", "eqx.nn.Shared"),),
        quick=("--rounds", "8"),
        smallest=("--rounds", "1", "--shrink", "8"),
    ),
    "transformer": Benchmark(
        "A deep transformer",
        "A GPT of pre-norm blocks of width 128, one step of Adam, in a process for each that take turns; the losses of the first"
        " five steps are checked to agree.",
        "transformer.py",
        (
            Headline("step of a GPT of 24 blocks", "step of Adam", "linen", "24 blocks"),
            Headline("tracing a step of a GPT of 24 blocks", "trace + lower", "linen", "24 blocks"),
            Headline("compiling a step of a GPT of 24 blocks", "compile", "linen", "24 blocks"),
        ),
        full=("--rounds", "2", "--sizes", "6", "12", "24"),  # by hand, Equinox and Haiku compile for minutes at 48
        quick=("--rounds", "1", "--sizes", "6", "24"),
        smallest=SMALLEST_TURNS,
    ),
    "mlp": Benchmark(
        "Small layers",
        "An MLP of layers of width 32, where dispatch dominates, in a process for each that take turns; the losses of the first"
        " five steps are checked to agree.",
        "mlp.py",
        (Headline("forward pass of 32 small layers", "forward pass", "by hand", "32 layers"),),
        quick=("--rounds", "1"),
        smallest=SMALLEST_TURNS,
    ),
    "convnet": Benchmark(
        "A convolutional network",
        "A ResNet in training with running statistics, in a process for each that take turns; the losses of the first five steps"
        " are checked to agree.",
        "convnet.py",
        (Headline("step of a ResNet of 9 blocks", "step of Adam", "linen", "9 blocks"),),
        quick=("--rounds", "1"),
        smallest=("--rounds", "1", "--turns", "1", "--sizes", "3", "--who", "ptree", "by hand"),
    ),
    "decode": Benchmark(
        "Decoding",
        "A GPT with a cache of 256 places says one token after the other, in a process for each that take turns; all are checked"
        " to say the same.",
        "decode.py",
        (Headline("a token of a GPT of 24 blocks with a cache", "token", "by hand", "24 blocks"),),
        quick=("--rounds", "1"),
        smallest=SMALLEST_TURNS,
    ),
    "train": Benchmark(
        "Training",
        "Steps of AdamW in seconds of the processor, the least of several in random order: alone, in microbatches, with what"
        " comes with them, with frozen leaves and with low-rank factors, after losses, gradients and ends are checked to agree.",
        "train.py",
        (
            Headline("step of AdamW, 4 layers of width 1024", "a step of 4 layers of width 1024, 256 rows", "by hand"),
            Headline("step of AdamW, 100 leaves", "a step of 50 layers of width 64, 64 rows", "nnx"),
            Headline(
                "memory of the gradient of low-rank factors",
                "gradient of factors of all kernels, temporary memory",
                "merged",
            ),
        ),
        quick=("--rounds", "5"),
        smallest=("accumulate", "carry", "--rounds", "1", "--shrink", "32"),
    ),
    "shard": Benchmark(
        "Many devices",
        "A step of AdamW placed by rules over virtual devices of the CPU, in seconds of all threads of the processor, after losses"
        " are checked to agree; and abstract plans of large models.",
        "shard.py",
        (Headline("step over 8 devices", "step of AdamW", "NamedSharding", "8 devices"),),
        quick=("--rounds", "1", "--turns", "5"),
        smallest=(
            *("--rounds", "1", "--turns", "1", "--sizes", "2", "--shrink", "64"),
            *("--who", "ptree", "JAX, NamedSharding by hand"),
        ),
    ),
    "files": Benchmark(
        "Files",
        "GPT-2 small, 498 MB in 148 leaves, from and to ready arrays: saved with `fsync`, loaded from the page cache, and"
        " checked to be equal.",
        "files.py",
        (
            Headline(
                "loading 498 MB, compared with checksums", "load", "safetensors|Orbax|Equinox|savez|msgpack|PyTorch"
            ),
        ),
        quick=("--turns", "3"),
        smallest=("--rounds", "1", "--turns", "1", "--sizes", "1", "--who", "ptree", "plain bytes", "np.savez"),
    ),
    "files-in-memory": Benchmark(
        "Files in memory",
        "The same with files in a file system in memory (tmpfs).",
        "files.py",
        quick=("--turns", "3"),
        smallest=("--rounds", "1", "--turns", "1", "--sizes", "1", "--who", "ptree", "plain bytes"),
        environment=(("TMPDIR", "/dev/shm"),),
    ),
    "look": Benchmark(
        "Looking",
        "Statistics, observation, tables, differences and reports in seconds of the processor, the least of several turns, after"
        " the numbers are compared with those by hand.",
        "look.py",
        (
            Headline("observing a step of 1,024 tokens", "a step of Adam on 1,024 tokens, observed", "a step alone"),
            Headline("comparing two files of 498 MB", "diff of two files of 498 MB, the same", "reading both"),
        ),
        quick=("--rounds", "5"),
        smallest=("--rounds", "1", "--shrink", "64"),
    ),
    "convert": Benchmark(
        "Converting",
        "Files of PyTorch read into JAX, GPT-2 small by its published names, and written as ONNX, in seconds of the processor, the"
        " least of several turns, after all numbers are compared.",
        "convert.py",
        (
            Headline(
                "reading a `.pt` of 500 MB, compared with checksums",
                "`.pt` of 500 MB in 100 arrays, into JAX, compared with checksums",
                "torch.load, jnp",
            ),
        ),
        quick=("--turns", "2"),
        smallest=("--turns", "1", "--shrink", "64"),
    ),
    "shape": Benchmark(
        "The shape of the code",
        "Counts that say how easy code is to read, of ptree and of libraries that it learns from, by the same code.",
        "shape.py",
    ),
}
