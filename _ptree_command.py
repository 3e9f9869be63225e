"""The console script `ptree`: beside the package, as the package's front page takes longer to import than this."""

import signal

# The system ends the program at once. By default Python raises an exception wherever it is: in the middle of an import, or
# where NumPy or JAX begin to run, which then end with a traceback of their own, or crash.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> int:
    """Run the command that `sys.argv` names, and return its exit code."""
    from ptree._command_line.program import main

    return main()
