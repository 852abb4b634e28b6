"""Addresses as people write them: `127.0.0.1:2641`, `[::1]:2641`, and for outgoing connections `node.example:2643`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

PORT_MAX = 65_535
_HOST_NAME = re.compile(
    r"(?=.{1,253}\Z)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z"
)


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host (IPv4 or IPv6 literal, for outgoing connections also a name) and a port; port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def is_loopback(self) -> bool:
        """A name counts as loopback only when it is `localhost`."""
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_any(self) -> bool:
        """`0.0.0.0` or `::`: every address of the machine."""
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_unspecified
        except ValueError:
            return False

    @staticmethod
    def parse(text: str, *, names: bool = False) -> Address:
        """Parse `host:port`.

        Args:
            names: allow a host name; otherwise an IP literal only (what one can listen on).
        Raises:
            ValueError: says what is wrong and what to write instead.
        """
        host, colon, port_text = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f'{text!r} has no port; write it like "127.0.0.1:2641" or "[::1]:2641"')
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if ":" not in host:
                raise ValueError(f"{text!r}: square brackets are for IPv6 addresses")
        elif ":" in host:
            raise ValueError(f'{text!r}: an IPv6 address with a port is written in brackets, like "[{host}]:{port_text}"')
        if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= PORT_MAX):
            raise ValueError(f"{text!r}: a port is a number from 0 (any free one) to {PORT_MAX}")
        return Address(parse_host(host, names=names), int(port_text))


def parse_host(text: str, *, names: bool = False) -> str:
    """An IP literal in its shortest spelling, or a host name where allowed. Raises ValueError."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if names and _HOST_NAME.match(text) and not text.replace(".", "").isdigit():
            return text.lower()
        wanted = "an IPv4 or IPv6 address or a host name" if names else "an IPv4 or IPv6 address"
        raise ValueError(f"{text!r} is not {wanted}") from None
