"""`visavis completion SHELL`: a script with which a shell completes verbs, options and file names."""

from __future__ import annotations

import argparse

_EPILOG = """\
  eval "$(visavis completion bash)"                      now; in ~/.bashrc for every shell
  visavis completion zsh > ~/.zfunc/_visavis             with ~/.zfunc in fpath
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="whose script to print")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from visavis.cli import build_parser
    from visavis.runtimes import import_runtime

    shtab = import_runtime("shtab")
    parser = build_parser(every=True)
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell=args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, files: dict[str, str]) -> None:
    """Complete file names wherever a verb takes a value that is none of a few choices."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in set(action.choices.values()):
                _complete_files(verb, files)
        elif action.nargs != 0 and action.choices is None and action.type is None:
            action.complete = files  # type: ignore[attr-defined]  # where shtab looks
