"""The arguments of each command, with the texts of its help."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

import ptree

from .._words import printable, suggestion
from . import file_arguments, look_arguments
from .output import Commands

_COMPLETION = """Print a script that completes commands, options and files.
bash: source <(ptree completion bash)   zsh: source <(ptree completion zsh)   fish: ptree completion fish | source"""
_EXIT_CODES = "exit codes: 0; 1 where files differ or are damaged; 2 for wrong use and for what cannot be read"


class Parser(argparse.ArgumentParser):
    """A parser of argparse whose messages begin with `ptree:` and name the nearest command where one is misspelt."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        # an index such as "-1,0" is no option; argparse alone knows that of "-1"
        self._negative_number_matcher = re.compile(r"-[0-9]")

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"ptree: {printable(message)}{end} `{self.prog} --help` says how to use it\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        choices = [] if action.choices is None else list(map(str, action.choices))
        if choices and str(value) not in choices:
            near = suggestion(str(value), choices) or f" There are {', '.join(choices)}"
            option = f"{action.option_strings[0]}: " if action.option_strings else ""
            raise argparse.ArgumentError(None, f"{option}there is no {value!r}.{near.rstrip('.')}")


class CommandParser(Parser):
    """The parser of one command, which takes its options anywhere: before, between and after files."""

    _is_intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        # argparse alone gives an optional argument, such as OUT, up at the first option before it
        if self._is_intermixed:
            return super().parse_known_args(args, namespace)
        self._is_intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_intermixed = False


def parser() -> Parser:
    """The parser of the command line. It imports nothing that a command needs to run."""
    whole = Parser(
        prog="ptree",
        description="Look at files of parameters: safetensors, shards, npz, PyTorch, folders of checkpoints.",
        epilog=_EXIT_CODES,
    )
    whole.add_argument("--version", action="version", version=f"ptree {ptree.__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True, dest="command", parser_class=CommandParser)
    for module in (look_arguments, file_arguments):
        module.add_commands(commands)
    _add_completion(commands)
    return whole


def _add_completion(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="scripts for bash, zsh and fish",
        description=_COMPLETION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(commands=commands)
