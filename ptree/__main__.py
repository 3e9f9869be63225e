"""`python -m ptree`: the command line."""

import sys

from _ptree_command import main

if __name__ == "__main__":
    sys.exit(main())
