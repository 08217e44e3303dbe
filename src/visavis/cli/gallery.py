"""visavis gallery: look after a gallery, one sub-command an action."""

from __future__ import annotations

import argparse

from visavis.cli._audit import add_audit, audited, subject_ids, tell_subjects
from visavis.cli.gallery_actions import Action, subjects, unknowns, upkeep

ACTIONS: dict[str, Action] = {**subjects.ACTIONS, **unknowns.ACTIONS, **upkeep.ACTIONS}

# Actions that the audit log calls as the service does, and those that change the gallery.
_EVENTS = {"rename": "change", "split": "change", "adopt": "enroll"}
_CHANGES = ("rename", "change", "merge", "split", "adopt", "drop-unknowns", "import")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help="the gallery's file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_audit(parser)
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

    event = _EVENTS.get(args.action, args.action)
    with audited(args, event, changes=args.action in _CHANGES) as about, Gallery(args.gallery) as gallery:
        values, lines = ACTIONS[args.action].run(gallery, args)
        tell_subjects(about, subject_ids(values))
    print(json.dumps(values, indent=2) if args.json else "\n".join(lines))
    return 0
