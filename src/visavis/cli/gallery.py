"""visavis gallery: look after a gallery, one sub-command an action."""

from __future__ import annotations

import argparse

from visavis.cli._audit import add_audit, audited, subject_ids, tell_subjects
from visavis.cli.gallery_actions import GALLERY, Action, subjects, unknowns, upkeep

ACTIONS: dict[str, Action] = {**subjects.ACTIONS, **unknowns.ACTIONS, **upkeep.ACTIONS}
CLOSED_ACTIONS: dict[str, Action] = {"migrate": upkeep.MIGRATE}  # cannot open the gallery yet

# Actions that the audit log calls as the service does; those that change the gallery or copy it are announced in it.
_EVENTS = {"rename": "change", "split": "change", "adopt": "enroll", "samples": "look"}
_CHANGES = ("migrate", "rename", "change", "merge", "split", "adopt", "drop-unknowns", "import", "export", "backup")
_LOOKS = ("list", "samples", "unknowns", "duplicates", "fpir", "check")
# What a gallery is only read for, so that its file need not be writable.
_READS = (*_LOOKS, "export", "backup")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help=GALLERY)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_audit(parser)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, action in {**ACTIONS, **CLOSED_ACTIONS}.items():
        sub = actions.add_parser(
            name, help=action.line, description=action.line[0].upper() + action.line[1:] + ".", allow_abbrev=False
        )
        action.configure(sub)
        sub.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    event = _EVENTS.get(args.action) or str(args.action)
    with audited(args, event, changes=args.action in _CHANGES) as about:
        if args.action in CLOSED_ACTIONS:
            values, lines = CLOSED_ACTIONS[args.action].run(None, args)
            whom = []
        else:
            with _open(args) as gallery:
                values, lines = ACTIONS[args.action].run(gallery, args)
                whom = [gallery.subject(args.name).id] if args.action == "samples" else subject_ids(values)
        tell_subjects(about, whom)
    print(json.dumps(values, indent=2) if args.json else "\n".join(lines))
    return 1 if isinstance(values, dict) and values.get("ok") is False else 0


def _open(args: argparse.Namespace):
    """The gallery; made, where the action is given the model it is for."""
    from visavis.cli._gallery import remember_model, writable
    from visavis.deploy.gallery.opening import open_gallery

    if getattr(args, "model", None) is None:
        return open_gallery(args.gallery, read_only=args.action in _READS and not writable(args.gallery))
    from visavis.deploy.gallery.exchange import model_of_export
    from visavis.deploy.gallery.model_identity import ModelIdentity
    from visavis.deploy.recognizer import card_of

    identity = ModelIdentity.of_card(card_of(args.model))
    gallery = open_gallery(args.gallery, identity, create=True, retention_days=model_of_export(args.file)[1])
    remember_model(gallery, args.model, args.model)
    return gallery
