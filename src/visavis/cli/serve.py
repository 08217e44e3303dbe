"""visavis serve: a service and a page over a gallery."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from visavis.cli._audit import add_audit, audit_file
from visavis.cli._detection import add_detection, detection_options
from visavis.cli.gallery_actions import GALLERY

if TYPE_CHECKING:
    from visavis.deploy.server.settings import ServiceSettings


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gallery", metavar="GALLERY", help=f"{GALLERY}; made when absent")
    parser.add_argument("--model", metavar="MODEL", help="the model, where it is not the one remembered")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1); others need a token")
    parser.add_argument("--port", type=int, default=8000, help="port (8000; 0 takes a free one)")
    parser.add_argument(
        "--fmr", type=float, metavar="RATE", help="false match rate to decide at (1e-3, or the strictest calibrated)"
    )
    parser.add_argument("--threshold", type=float, metavar="S", help="decide at this cosine similarity instead")
    parser.add_argument(
        "--read-only", action="store_true", help="verify and identify only; the gallery's file need not be writable"
    )
    parser.add_argument("--keep-crops", action="store_true", help="keep the crops of enrolled faces")
    parser.add_argument(
        "--retention-days", type=float, metavar="N", help="for a new gallery: erase subjects after N days"
    )
    parser.add_argument(
        "--rate", type=float, default=600, metavar="N", help="requests per minute and client (600; 0: any)"
    )
    parser.add_argument("--max-upload", type=float, default=16, metavar="MB", help="of one request (16)")
    parser.add_argument(
        "--max-pixels", type=float, default=40, metavar="MP", help="megapixels of a request, all pictures together (40)"
    )
    add_audit(parser)
    parser.add_argument(
        "--token-file", metavar="FILE", help="tokens, a line each: ROLE TOKEN; read again when it changes"
    )
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="believe X-Forwarded-For of this address or network; repeatable",
    )
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="what browsers show as the service's address behind a proxy that changes it; repeatable",
    )
    parser.add_argument(
        "--root-path", default="", metavar="PATH", help="the path below which a proxy shows the service, like /faces"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate (PEM); with --tls-key the service speaks HTTPS")
    parser.add_argument("--tls-key", metavar="FILE", help="its key (PEM)")
    add_detection(parser)
    parser.add_argument("--precision", default="float32", metavar="P", help="index in memory: float32, float16 or int8")
    parser.add_argument(
        "--index",
        choices=("exact", "cells", "graph"),
        help="how large galleries are searched: exact (default), or by cells or a graph, which may miss a subject",
    )
    parser.add_argument("--approximate", action="store_true", help="same as --index cells")
    parser.epilog = (
        "Tokens come from --token-file, or the environment: VISAVIS_MATCH_TOKEN may compare, VISAVIS_READ_TOKEN may\n"
        "see names and embeddings, VISAVIS_TOKEN may enroll, change and forget, VISAVIS_ADMIN_TOKEN may read the\n"
        "audit log; several are separated by commas. VISAVIS_GALLERY_KEY (32 bytes, base64) encrypts a new gallery."
    )


def run(args: argparse.Namespace) -> int:
    import socket
    from pathlib import Path

    from visavis.runtimes import require

    require("fastapi", "uvicorn")
    import uvicorn

    from visavis.cli._gallery import index_kind, open_gallery
    from visavis.deploy.server.app import create_app
    from visavis.deploy.server.listener import server_config
    from visavis.errors import DataError

    if bool(args.tls_cert) != bool(args.tls_key):
        raise DataError("HTTPS wants both --tls-cert and --tls-key")
    for file in filter(None, (args.tls_cert, args.tls_key)):
        if not Path(file).is_file():
            raise DataError(f"{file}: no such file")
    settings = _settings(args)
    try:
        listener = socket.create_server(
            (args.host, args.port), family=socket.AF_INET6 if ":" in args.host else socket.AF_INET
        )
    except OSError as error:
        raise DataError(f"cannot listen at {args.host}:{args.port} ({error}); choose another --port") from error
    with listener:
        recognizer, gallery = open_gallery(
            args.gallery,
            args.model,
            create=not args.read_only,
            read_only=args.read_only,
            **detection_options(args),
            precision=args.precision,
            approximate=index_kind(args),
            retention_days=args.retention_days,
        )
        if recognizer.point(fmr=args.fmr, threshold=args.threshold) is None:
            from visavis.deploy.operating_point import HOW_TO

            print(f"this model has no calibrated threshold, so answers only rank; {HOW_TO}, or give --threshold")
        app = create_app(recognizer, gallery, settings)
        scheme, port = "https" if args.tls_cert else "http", listener.getsockname()[1]
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"{len(gallery)} subjects; page {scheme}://{host}:{port}/  API {scheme}://{host}:{port}/docs", flush=True)
        config = server_config(
            app, tls_cert=args.tls_cert, tls_key=args.tls_key, max_connections=settings.max_connections
        )
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def _settings(args: argparse.Namespace) -> ServiceSettings:
    """What was typed and what the environment says, checked."""
    from pathlib import Path

    from visavis.cli._gallery import writable
    from visavis.deploy.server.proxies import public_origin, root_path, trusted_network
    from visavis.deploy.server.roles import tokens_from_environment
    from visavis.deploy.server.settings import ServiceSettings, check_address
    from visavis.errors import DataError

    if args.max_upload <= 0 or args.max_pixels <= 0 or args.rate < 0:
        raise DataError("--max-upload and --max-pixels must be positive and --rate not negative")
    if not 0 <= args.port <= 65_535:
        raise DataError(f"--port lies between 0 and 65535, got {args.port}")
    settings = ServiceSettings(
        tokens=tokens_from_environment(),
        token_file=Path(args.token_file) if args.token_file else None,
        max_upload=int(args.max_upload * 1e6),
        max_pixels=int(args.max_pixels * 1e6),
        max_pixels_in_flight=int(args.max_pixels * 2e6),
        rate=args.rate,
        keep_crops=args.keep_crops,
        audit=Path(audit) if (audit := audit_file(args)) else None,
        fmr=args.fmr,
        threshold=args.threshold,
        trusted_proxies=tuple(map(trusted_network, args.trusted_proxy)),
        origins=tuple(map(public_origin, args.origin)),
        root_path=root_path(args.root_path),
        read_only=args.read_only,
    )
    check_address(args.host, settings)
    if args.read_only and (args.keep_crops or args.retention_days is not None):
        raise DataError("--read-only writes nothing, so --keep-crops and --retention-days cannot take effect with it")
    if not args.read_only and Path(args.gallery).is_file() and not writable(args.gallery):
        raise DataError(f"{args.gallery}: the file or its folder cannot be written; to serve it so, add --read-only")
    return settings
