"""The command completion: scripts for bash, zsh and fish that complete commands, options, choices and files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from .output import Commands


@dataclass(frozen=True)
class Option:
    """An option of a command, for completion."""

    names: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    takes_value: bool


@dataclass(frozen=True)
class Command:
    """A command of the command line, for completion."""

    name: str
    help: str
    options: tuple[Option, ...]
    choices: tuple[str, ...]
    """Of its first argument, where that is no file."""


def run_completion(given: argparse.Namespace) -> int:
    commands: Commands = given.commands
    helps = {action.dest: action.help or "" for action in commands._choices_actions}
    listed = [_command(name, helps[name], sub) for name, sub in commands.choices.items()]
    writers = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
    print(writers[given.shell](listed), end="")
    return 0


def _command(name: str, help: str, parser: argparse.ArgumentParser) -> Command:
    options: list[Option] = []
    first_choices: tuple[str, ...] = ()
    for action in parser._actions:
        choices = tuple(map(str, action.choices or ()))
        if action.option_strings:
            options.append(Option(tuple(action.option_strings), action.help or "", choices, action.nargs != 0))
        elif choices:
            first_choices = choices
    return Command(name, help, tuple(options), first_choices)


def bash_script(commands: list[Command]) -> str:
    """The script for bash."""
    cases: list[str] = []
    for command in commands:
        words = [name for option in command.options for name in option.names]
        cases.append(f'    {command.name}) words="{" ".join([*words, *command.choices])}" ;;')
    values = sorted(
        {
            (name, option.choices)
            for command in commands
            for option in command.options
            for name in option.names
            if option.choices
        }
    )
    choices = [
        f'    {name}) COMPREPLY=($(compgen -W "{" ".join(options)}" -- "$current")); return ;;'
        for name, options in values
    ]
    names = " ".join(command.name for command in commands)
    return "\n".join([
        "_ptree() {",
        "  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=",
        "  if [ \"$COMP_CWORD\" -eq 1 ]; then",
        f'    COMPREPLY=($(compgen -W "{names} --help --version" -- "$current"))',
        "    return",
        "  fi",
        '  case "$before" in',
        *choices,
        "  esac",
        '  case "${COMP_WORDS[1]}" in',
        *cases,
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        "complete -o default -o bashdefault -F _ptree ptree",
        "",
    ])  # fmt: skip


def zsh_script(commands: list[Command]) -> str:
    """The script for zsh."""
    described = [f"    '{command.name}:{_quoted(command.help)}'" for command in commands]
    cases: list[str] = []
    for command in commands:
        arguments = [f"'{_zsh_option(option)}'" for option in command.options]
        rest = f"'*:what:({' '.join(command.choices)})'" if command.choices else "'*:file:_files'"
        cases.append(f"    {command.name}) _arguments {' '.join([*arguments, rest])} ;;")
    return "\n".join([
        "#compdef ptree",
        "_ptree() {",
        "  local -a commands",
        "  commands=(",
        *described,
        "  )",
        "  if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    return",
        "  fi",
        "  local command=$words[2]",
        "  shift words",
        "  (( CURRENT-- ))",
        "  case $command in",
        *cases,
        "  esac",
        "}",
        "compdef _ptree ptree",
        "",
    ])  # fmt: skip


def _zsh_option(option: Option) -> str:
    name = option.names[-1]
    help = _quoted(option.help).replace("[", "(").replace("]", ")")
    if not option.takes_value:
        return f"{name}[{help}]"
    value = f"({' '.join(option.choices)})" if option.choices else "_files"
    return f"{name}[{help}]:value:{value}"


def fish_script(commands: list[Command]) -> str:
    """The script for fish."""
    lines = [
        f"complete -c ptree -n __fish_use_subcommand -f -a {command.name} -d '{_quoted(command.help)}'"
        for command in commands
    ]
    for command in commands:
        condition = f"-n '__fish_seen_subcommand_from {command.name}'"
        if command.choices:
            lines.append(f"complete -c ptree {condition} -f -a '{' '.join(command.choices)}'")
        for option in command.options:
            names = " ".join(_fish_name(name) for name in option.names)
            value = " -r" if option.takes_value else ""
            choices = f" -f -a '{' '.join(option.choices)}'" if option.choices else ""
            lines.append(f"complete -c ptree {condition} {names}{value}{choices} -d '{_quoted(option.help)}'")
    return "\n".join(lines) + "\n"


def _fish_name(name: str) -> str:
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _quoted(text: str) -> str:
    """A text inside the single quotes of a shell."""
    return text.replace("'", "").replace(":", " -")
