"""Writes docs/commands.md, the page of the command line, from the parsers of the commands.

python docs/scripts/commands.py
"""

import argparse
from pathlib import Path

from keras_mixers.__main__ import COMMANDS

PAGE = Path(__file__).parents[1] / "commands.md"
HEAD = """# Command line

`keras-mixers`, or `python -m keras_mixers` from a checkout, followed by a command. `--debug` shows the traceback of
what fails, `--version` the version. A refusal is one sentence and exit status 2, a failure on the way 1.
"""


def page() -> str:
    """Returns the page: a section and a table for each command."""
    sections = [HEAD]
    for name, command in COMMANDS.items():
        parser = argparse.ArgumentParser(add_help=False)
        command.add_arguments(parser)
        actions = [action for action in parser._actions if action.help != argparse.SUPPRESS]
        rows = [f"| {_names(action)} | {_help(action)} |" for action in actions]
        sections.append(
            f"## {name}\n\n{command.help[0].upper()}{command.help[1:]}.\n\n| argument | |\n| --- | --- |\n"
            + "\n".join(rows)
            + "\n"
        )
    return "\n".join(sections)


def _names(action: argparse.Action) -> str:
    own = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    value = "" if action.nargs == 0 else f" {' '.join(own) if isinstance(own, tuple) else own}"
    names = [f"`{option}{value}`" for option in action.option_strings] or [f"`{value.strip()}`"]
    return ", ".join(names) + (" ..." if action.nargs in ("*", "+") else "")


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("|", "\\|").replace("%%", "%")
    choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
    return text[:1].upper() + text[1:] + choices


if __name__ == "__main__":
    PAGE.write_text(page())
