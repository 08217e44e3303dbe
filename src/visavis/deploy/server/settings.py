"""What an operator chooses about the service."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from visavis.deploy.server.proxies import Network
from visavis.deploy.server.roles import HOW_TO, Role
from visavis.errors import DataError
from visavis.machine import usable_cores


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and rights of the service.

    Args:
        tokens: token -> role, see `roles`. Without any here and in `token_file` anybody who reaches the service may do
            everything, which is accepted on this machine's own address only.
        token_file: more tokens; read again when it changes.
        max_upload: bytes of one request.
        max_pixels: of all pictures of one request, and half of that of one that is no JPEG, by their headers.
        max_pixels_in_flight: of all requests that are worked on; more wait.
        max_connections: open at a time; beyond, one that has asked for nothing is closed for a new one.
        max_images: in one request.
        max_faces: embedded of one request, the largest of each picture first.
        max_seconds: of a processor that the pictures of one request may take; none is begun after that.
        rate: requests per minute and client; 0 for no limit.
        keep_crops: store crops of enrolled faces.
        audit: file that receives one record an event, without pictures, embeddings or names; see `audit`.
        sweep_seconds: how often expired subjects are erased.
        fmr: false match rate decisions are taken at; see `operating_point` for what None means.
        threshold: similarity to decide at instead.
        trusted_proxies: whose X-Forwarded-For and X-Forwarded-Proto are believed; nobody's by default.
        origins: addresses browsers see the service under, where a proxy hides them from it; scheme://host[:port].
        root_path: the path below which a proxy shows the service.
        read_only: refuse whatever changes the gallery, and erase nothing when its time is over; nobody is found then.
        workers: requests worked on at the same time; more wait, and beyond `waiting` are turned away.
    """

    tokens: dict[str, Role] = field(default_factory=dict)
    token_file: Path | None = None
    max_upload: int = 16_000_000
    max_pixels: int = 40_000_000
    max_pixels_in_flight: int = 80_000_000
    max_connections: int = 256
    max_images: int = 20
    max_faces: int = 64
    max_seconds: float = 2.0
    rate: float = 600.0
    keep_crops: bool = False
    audit: Path | None = None
    sweep_seconds: float = 60.0
    fmr: float | None = None
    threshold: float | None = None
    trusted_proxies: tuple[Network, ...] = ()
    origins: tuple[str, ...] = ()
    root_path: str = ""
    read_only: bool = False
    workers: int = field(default_factory=lambda: 4 * usable_cores() + 4)
    waiting: int = 256

    @property
    def wants_token(self) -> bool:
        """Whether requests must carry a token."""
        return bool(self.tokens) or self.token_file is not None


def check_address(host: str, settings: ServiceSettings) -> None:
    """Refuse to be reachable from other machines without a token.

    Raises:
        DataError: `host` is not this machine's own address, or a proxy stands before it, and there is no token.
    """
    if settings.wants_token:
        return
    if settings.trusted_proxies or settings.origins:
        raise DataError(f"a proxy makes the service reachable from other machines, and no token is set; {HOW_TO}")
    if is_loopback(host):
        return
    raise DataError(
        f"--host {host} is reachable from other machines, and no token is set; {HOW_TO}, or stay with 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
