"""`visavis validate SRC`: exit 1 if something is wrong with a picture set."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from visavis.machine import usable_cores
from visavis.runtimes import require

if TYPE_CHECKING:
    import numpy as np

    from visavis.data.sources.base import Source


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="folder per identity, .rec, .bin or a list")
    parser.add_argument("--against", metavar="OTHER", help="another set: identities and pictures the two share")
    parser.add_argument("--model", metavar="MODEL", help="embed the pictures: label errors, people under two names")
    parser.add_argument("--json", metavar="FILE", help="write everything found")
    parser.add_argument("--html", metavar="FILE", help="write a page with the class histogram and sheets to review")
    parser.add_argument("--only", metavar="LIST", help="only the identities in a list, one a line")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: one a core)")
    parser.add_argument("--skip-damaged", action="store_true", help="leave damaged records of a .rec out")


def run(args: argparse.Namespace) -> int:
    from visavis.data.sources import open_source, read_identities
    from visavis.data.validate.validation import validate
    from visavis.files import write_atomically

    if args.html:
        require("matplotlib")
    source = open_source(args.source, skip_damaged=args.skip_damaged)
    if args.only:
        source = source.only(read_identities(args.only))
    other = open_source(args.against) if args.against else None
    embeddings = other_embeddings = None
    if args.model:
        from visavis.models.load import load_embedder

        embedder = load_embedder(args.model)
        embeddings = _embed(embedder, source)
        other_embeddings = _embed(embedder, other) if other else None
    with _phases() as show:
        findings = validate(
            source,
            against=other,
            embeddings=embeddings,
            against_embeddings=other_embeddings,
            workers=args.workers,
            progress=show,
        )
    facts = findings.to_json()
    _print(facts)
    if args.json:
        write_atomically(args.json, json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n")
        print(f"written: {args.json}")
    if args.html:
        from visavis.data.validate.page import to_html

        write_atomically(args.html, to_html(findings).encode())
        print(f"written: {args.html}")
    return 0 if facts["ok"] else 1


@contextmanager
def _phases() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each phase as it comes."""
    from visavis.cli.evaluation_progress import embedding_bar

    with ExitStack() as stack:
        current: dict[str, Callable[[int, int], None]] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in current:
                stack.pop_all().close()
                current.clear()
                current[what] = stack.enter_context(embedding_bar(what))
            current[what](done, total)

        yield show


def _embed(embedder: Any, source: Source) -> np.ndarray:
    from visavis.cli.evaluation_progress import embedding_bar
    from visavis.evaluate.embedding import embed_images

    index = {name: i for i, name in enumerate(source.names)}
    with embedding_bar("embedding") as show:
        return embed_images(embedder, source.names, lambda name: source.image(index[name]), progress=show).vectors


def _print(facts: dict[str, Any]) -> None:
    per = facts["per_identity"]
    sizes = ", ".join(f"{size} ({count:,})" for size, count in list(facts["sizes"].items())[:4])
    print(f"{facts['pictures']:,} pictures of {facts['identities']:,} identities "
          f"(min {per['min']}, median {per['median']:g}, max {per['max']:,} a person); {sizes}")  # fmt: skip
    for line in facts["problems"]:
        print(f"  wrong: {line}")
    for line in facts["notes"]:
        print(f"  note: {line}")
    examples = [f"unreadable: {u['picture']}: {u['reason']}" for u in facts["unreadable"][:5]]
    examples += ["identical: " + " = ".join(group) for group in facts["identical"]["across"][:20]]
    examples += ["look alike: " + " ~ ".join(m["pictures"]) + f" ({m['correlation']:.2f})"
                 for m in facts["similar"]["across"][:20]]  # fmt: skip
    against = facts.get("against", {})
    examples += [f"also in the other set: {name}" for name in against.get("identities", [])[:5]]
    examples += ["identical to the other set: " + " = ".join(pair) for pair in against.get("identical", [])[:5]]
    examples += [
        "looks like one of the other set: " + " ~ ".join(m["pictures"]) for m in against.get("similar", [])[:5]
    ]
    examples += [f"filed as {e['identity']}, looks like {e['looks_like']}: {e['picture']} "
                 f"({e['own_similarity']:.2f} against {e['other_similarity']:.2f})"
                 for e in facts.get("labels", {}).get("errors", [])[:10]]  # fmt: skip
    for what, same in (("may be one person", facts.get("labels", {}).get("same", [])),
                       ("the same person in the other set", against.get("people", []))):  # fmt: skip
        examples += [f"{what}: {' ~ '.join(s['identities'])} ({s['similarity']:.2f})" for s in same[:10]]
    for line in examples:
        print(f"  {line}")
    print(
        "nothing wrong" if facts["ok"] else "something is wrong; --html FILE shows the pictures, --json FILE lists all"
    )
