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


def succeeded(capsys, *arguments):
    """What a command wrote to stdout, that ended well and wrote nothing to stderr."""
    code, out, err = ended(capsys, *arguments)
    assert (code, err) == (0, "")
    return out


def ended_with_words(capsys, *arguments):
    """The exit code of a command and its output, without a traceback of Python in it."""
    code, out, err = ended(capsys, *arguments)
    assert "Traceback" not in out + err
    assert "should not happen" not in err
    return code, out, err
