"""visavis gallery: look after a gallery, one sub-command an action."""

from __future__ import annotations

import argparse

from visavis.cli.gallery_actions import Action, subjects, unknowns, upkeep

ACTIONS: dict[str, Action] = {**subjects.ACTIONS, **unknowns.ACTIONS, **upkeep.ACTIONS}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help="the gallery's file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, action in ACTIONS.items():
        sub = actions.add_parser(
            name, help=action.line, description=action.line[0].upper() + action.line[1:] + ".", allow_abbrev=False
        )
        action.configure(sub)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from visavis.deploy.gallery.sqlite import Gallery

    with Gallery(args.gallery) as gallery:
        values, lines = ACTIONS[args.action].run(gallery, args)
    print(json.dumps(values, indent=2) if args.json else "\n".join(lines))
    return 0
