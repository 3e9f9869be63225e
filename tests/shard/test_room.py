"""The room `ptree.shard`: it opens when it is first used, and says what is in it."""

import subprocess
import sys


def test_import_ptree_does_not_open_the_room():
    code = (
        "import sys, ptree; assert 'ptree.shard' not in sys.modules; ptree.shard; assert 'ptree.shard' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
