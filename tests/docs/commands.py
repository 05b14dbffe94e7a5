"""Whether the options that a page prints exist: for commands that no test can run."""

from __future__ import annotations

import importlib
import re
import shlex

import click

_OWN = re.compile(r"(tfrec|pipeline|serving|benchmarks)\b")


def check(script: str) -> int:
    """Parses the project's commands in a script, without running them.

    Returns:
        how many there were.

    Raises:
        click.UsageError: no such command or option.
    """
    lines = script.replace("\\\n", " ").splitlines()
    found = [words for line in lines if (words := _words(line))]
    for module, *arguments in found:
        command = _main(module)
        context = click.Context(command, info_name=module)
        while isinstance(command, click.Group) and arguments and arguments != ["--help"]:
            before = click.Context(command, info_name=module, allow_interspersed_args=False)
            _, arguments, _ = command.make_parser(before).parse_args(args=list(arguments))
            _, chosen, arguments = command.resolve_command(context, arguments)
            assert chosen
            command = chosen
        # A sentence may name a command without what it requires.
        parser = command.make_parser(click.Context(command, info_name=module))
        if not command.context_settings.get("ignore_unknown_options"):
            _, rest, _ = parser.parse_args(args=list(arguments))
            takes = any(isinstance(parameter, click.Argument) for parameter in command.params)
            if rest and not takes:
                raise click.UsageError(f"{module} takes no argument {rest[0]!r}")
    return len(found)


def _words(line: str) -> list[str]:
    """Module and arguments, if a line runs a module of the project."""
    words = shlex.split(line, comments=True) if "python -m " in line else []
    if words[:2] == ["python", "-m"] and _OWN.match(words[2]):
        return words[2:]
    return []


def _main(module: str) -> click.Command:
    for name in (module, f"{module}.__main__"):
        main = getattr(importlib.import_module(name), "main", None)
        if isinstance(main, click.Command):
            return main
    raise click.UsageError(f"{module} is no command")
