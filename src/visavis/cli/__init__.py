"""The command line: one file per verb, imported only when its verb is typed; the only room that prints."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from visavis.cli.output import lasting_output

# verb: (module, one line). A module offers configure(parser) and run(args) -> exit status.
VERBS = {
    "quickstart": ("quickstart", "synthetic faces -> train -> evaluate -> export -> report, in one command"),
    "synth": ("synth", "write generated faces, one folder per identity"),
    "detect": ("detect", "find the faces of pictures: places, landmarks, pose, quality"),
    "prepare": ("prepare", "detect and align the faces of a folder per identity"),
    "convert": ("convert", "from any data format of the field to any other"),
    "validate": ("validate", "count, find damaged files, duplicates and identity leaks"),
    "train": ("train", "train a recipe"),
    "evaluate": ("evaluate", "run a protocol on a model"),
    "calibrate": ("calibrate", "find a model's decision thresholds on a folder per person"),
    "adapt": ("adapt", "adapt a model to few people of one's own, without training"),
    "compare": ("compare", "paired test of two evaluations"),
    "import": ("import_", "turn published weights into a model folder"),
    "export": ("export", "write ONNX, OpenVINO or MINDIR, checked against the weights"),
    "embed": ("embed", "write the embeddings of pictures as .npz"),
    "verify": ("verify", "one picture against another"),
    "enroll": ("enroll", "add a subject to a gallery"),
    "identify": ("identify", "find who is on a picture"),
    "forget": ("forget", "erase a subject from a gallery"),
    "gallery": ("gallery", "look after a gallery: list, rename, merge, doubles, export"),
    "people": ("people", "sort a photo library by person"),
    "serve": ("serve", "a service and a page over a gallery"),
    "audit": ("audit", "check that an audit log is whole"),
    "bench": ("bench", "time a model in every runtime of this machine"),
    "doctor": ("doctor", "what this machine offers and what is missing"),
    "recipes": ("recipes", "list the recipes or print one"),
    "completion": ("completion", "print a shell's completion of verbs and options"),
    "models": ("models", "list the models that packages carry, or say what a model is"),
}

_FIELD = re.compile(r"--(\w+\.[\w.]+|seed|name|license|training_data)")

# Flags of the release before; they work for one release, with a line.
FORMER_FLAGS = {
    "evaluate": {"--frames": "--max-frames", "--norms": "--feature-norms", "--joint-people": "--jb-identities"},
    "export": {"--ranges": "--calibration-method"},
}
# Verbs that only print what there is: when nobody reads on, they are done. All others work on.
READ_ONLY = {"completion", "recipes", "models", "doctor", "compare"}


class _Parser(argparse.ArgumentParser):
    """argparse's parser, but a mistake gets one line that names what is near or where help is."""

    def error(self, message: str) -> NoReturn:
        from visavis.errors import unknown_name

        choice = re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if choice:
            message = unknown_name(choice[1].lower(), choice[2], re.findall(r"[\w.-]+", choice[3]))
        self.exit(2, f"visavis: {message}; see: {self.prog} --help\n")


# Verbs that compute, and take --threads; `train` has it in its recipe (--loop.threads), `bench` tries several.
COMPUTING = frozenset(
    {
        "quickstart",
        "synth",
        "detect",
        "prepare",
        "validate",
        "evaluate",
        "calibrate",
        "adapt",
        "export",
        "embed",
        "verify",
        "enroll",
        "identify",
        "people",
        "serve",
    }
)

# Verbs that load a MODEL, whose card may name Python code of its own.
LOADING = frozenset(
    {
        "validate",
        "train",
        "evaluate",
        "calibrate",
        "adapt",
        "export",
        "embed",
        "verify",
        "enroll",
        "identify",
        "people",
        "serve",
        "bench",
        "prepare",
    }
)


def build_parser(verb: str | None = None, *, every: bool = False) -> argparse.ArgumentParser:
    """The parser; only the named verb's module is imported, or `every` one."""
    from visavis import __version__

    parser = _Parser(prog="visavis", description="Deep face recognition: prepare, train, prove, ship.")
    parser.add_argument("--version", action="version", version=f"visavis {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback for errors of any kind")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, line) in VERBS.items():
        sub = verbs.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            formatter_class=argparse.RawTextHelpFormatter,
            allow_abbrev=False,
        )
        if every or name == verb:
            importlib.import_module(f"visavis.cli.{module}").configure(sub)
            if name in COMPUTING:
                sub.add_argument("--threads", type=int, metavar="N", help="threads to compute with (the usable cores)")
            if name in LOADING:
                sub.add_argument(
                    "--trust-code",
                    action="store_true",
                    help="import the Python code a model's card names; it may do anything",
                )
            if name in LOADING - {"prepare"}:  # which asks a model for its crops only
                sub.add_argument(
                    "--require-license",
                    choices=("commercial",),
                    help="refuse a model whose code or weights are under no license known to allow this",
                )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0 on success, 1 when a check failed, 2 on bad input, 130 after Ctrl-C."""
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in argv if not word.startswith("-")), None)
    from visavis.errors import unknown_name

    if verb is not None and verb not in VERBS:
        return _complain(unknown_name("verb", verb, VERBS))
    argv = _present_flags(verb, argv)
    args, rest = build_parser(verb).parse_known_args(_join_values(argv) if verb == "train" else argv)
    module = importlib.import_module(f"visavis.cli.{VERBS[args.verb][0]}")
    unknown = [word for word in rest if word.startswith("-") or not hasattr(module, "WORDS")]
    if unknown and not getattr(module, "TAKES_REST", False):
        known = [word for word in unknown if word.startswith("-")] or unknown
        more = f" and {len(known) - 5} more" if len(known) > 5 else ""
        named = " ".join(known[:5]) + more
        return _complain(f"visavis {args.verb} does not know {named}; see: visavis {args.verb} --help")
    more_words = getattr(module, "WORDS", None)  # words between options, which argparse leaves over
    if more_words is not None:
        getattr(args, more_words).extend(rest)
    args.rest = rest
    if getattr(args, "trust_code", False):
        from visavis.models.trust import trust_code

        trust_code()
    if getattr(args, "require_license", None):
        from visavis.models.licenses import require_license

        require_license(args.require_license)
    from visavis.machine import limit_threads

    threads = args.threads if args.verb in COMPUTING else None
    if threads is not None and threads < 1:
        return _complain(f"--threads must be 1 or more, got {threads}")
    limit_threads(threads)
    if args.verb in READ_ONLY:
        return _run(module, args)
    with lasting_output():
        return _run(module, args)


def _run(module: Any, args: argparse.Namespace) -> int:
    from visavis.errors import VisavisError
    from visavis.runtimes import EXTRAS, what_to_type

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if "://" in getattr(args, "gallery", ""):
            from visavis.deploy.gallery.postgres_address import check_argument

            check_argument(args.gallery)
        status = module.run(args) or 0
        sys.stdout.flush()
        return status
    except VisavisError as error:
        if args.debug:
            raise
        return _complain(str(error))
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if args.debug or name not in EXTRAS:
            raise
        return _complain(f"{args.verb} needs {name}, which is not installed; {what_to_type(name)}")
    except KeyboardInterrupt:
        return _complain("stopped", 130)
    except BrokenPipeError as error:
        if args.verb not in READ_ONLY:
            return _complain(f"{args.verb}: a connection broke ({error})")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        if args.debug:
            raise
        return _complain(f"{error.filename}: {error.strerror}")


def _join_values(words: Sequence[str]) -> list[str]:
    """`--section.field value` as one word, or the parser would take the value for the verb's own argument."""
    joined: list[str] = []
    for word in words:
        is_open = joined and _FIELD.fullmatch(joined[-1]) and not word.startswith("--")
        joined = [*joined[:-1], f"{joined[-1]}={word}"] if is_open else [*joined, word]
    return joined


def _present_flags(verb: str | None, words: Sequence[str]) -> list[str]:
    """The command line with flags of the release before as they are called now, and a line for each."""
    former, present = FORMER_FLAGS.get(verb or "", {}), []
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in former:
            print(
                f"visavis: {flag} is now called {former[flag]}; the former name works for one release", file=sys.stderr
            )
            word = f"{former[flag]}{equals}{value}"
        present.append(word)
    return present


def _complain(message: str, status: int = 2) -> int:
    print(f"visavis: {message}", file=sys.stderr)
    return status
