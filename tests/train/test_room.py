"""The room of training as a whole."""

import subprocess
import sys


def test_the_package_imports_optax_only_when_the_room_is_used():
    code = "import sys, ptree; assert 'optax' not in sys.modules; ptree.train"
    subprocess.run([sys.executable, "-c", code], check=True)
