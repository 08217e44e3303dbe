"""Who really asks, when a reverse proxy stands between: X-Forwarded-For is believed from named addresses only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from visavis.errors import DataError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": ":80", "https": ":443"}


def trusted_network(text: str) -> Network:
    """An address or a network whose X-Forwarded-For is believed.

    Raises:
        DataError: neither, or a network that holds everybody.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise DataError(
            f"--trusted-proxy wants an address or a network like 127.0.0.1 or 10.0.0.0/8, got {text!r} ({error})"
        ) from error
    if network.prefixlen == 0:
        raise DataError(f"--trusted-proxy {text} would believe what anybody says of himself; name the proxy's address")
    return network


def public_origin(text: str) -> str:
    """The address under which browsers see the service, as they write it in the header Origin.

    Raises:
        DataError: not scheme://host[:port].
    """
    try:
        parts = urlsplit(text.lower())
        proper = parts.scheme in _PORTS and parts.hostname and (parts.port or 1) and "@" not in parts.netloc
    except ValueError:
        parts, proper = urlsplit(""), False
    if not proper or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise DataError(
            f"--origin wants what a browser shows, like https://faces.example.org, got {text!r}; "
            "a path below it goes to --root-path"
        )
    return f"{parts.scheme}://{parts.netloc.removesuffix(_PORTS[parts.scheme])}"


def root_path(text: str) -> str:
    """The path below which a proxy shows the service: empty, or starting with a slash and not ending with one.

    Raises:
        DataError: anything else.
    """
    tidy = text.rstrip("/")
    if tidy and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", tidy):
        raise DataError(f"--root-path wants a path like /faces, got {text!r}")
    return tidy


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address a request came from: the nearest one that is no trusted proxy.

    Args:
        peer: address of the connection's other end.
        forwarded: the values of X-Forwarded-For, in the order of the headers; every proxy appends whom it saw.
        trusted: whose word is taken.
    """
    found = _address(peer)
    if found is None:
        return peer
    for entry in reversed([entry for value in forwarded for entry in value.split(",")]):
        if not _within(found, trusted):
            break
        previous = _address(entry)
        if previous is None:  # what stands further left is unsaid by anybody we trust
            break
        found = previous
    return str(found)


def address_block(text: str) -> str:
    """Whom a rate is counted for: an address, and of IPv6 the /64 that one customer gets whole."""
    address = _address(text)
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback:
        return str(ipaddress.ip_network((address.packed, 64), strict=False))
    return text if address is None else str(address)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    """An address, with or without a port; one of IPv4 that was mapped into IPv6 as itself."""
    text = text.strip().strip('"')
    bracketed = re.fullmatch(r"\[([^\]]*)\](:\d+)?", text)
    if bracketed:
        text = bracketed[1]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class ForwardedClient:
    """Puts the address a request came from, and the scheme it came by, in the place of the proxy's."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network], root_path: str = "") -> None:
        self._app = app
        self._trusted = trusted
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "root_path": self._root_path or scope.get("root_path", "")}
        peer = scope.get("client")
        if peer:
            scope |= {"client": (client_address(peer[0], _values(scope, b"x-forwarded-for"), self._trusted), 0)}
            through = _address(peer[0])
            if through and _within(through, self._trusted):
                scope["state"] = {**scope.get("state", {}), "through_proxy": True}
                schemes = _values(scope, b"x-forwarded-proto")
                if schemes and schemes[-1] in _PORTS:
                    scope["scheme"] = schemes[-1]
        await self._app(scope, receive, send)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
