"""Claims: looking at parameters costs a few reads of memory.

- diff of two files of 500 MB: at most 1.5 times reading both where they are the same, with at most 64 MiB.

Run it with `python benchmarks/look.py [PART ...]`. Times are of the processor, the least of several rounds; results are
checked equal first.
"""

import argparse

from _look_diff import diff_part

PARTS = {"diff": diff_part}

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    for name in arguments.parse_args().parts or PARTS:
        PARTS[name]()
