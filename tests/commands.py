"""Run a command of the command line in this process."""

from ptree._command_line import main


def ended(capsys, *arguments):
    """The exit code of a command, and what it wrote to stdout and stderr."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err
