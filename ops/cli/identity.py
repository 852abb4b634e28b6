"""`zaibei identity`: who this member is, as its peers must know it."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ops.cli.style import Console, effective, pairs, styled, target_options
from ops.config import MemberConfig
from ops.machine import prepare_folder
from ops.pki.edge_own import own_identity
from replica.model.edge_identity import CERTIFICATE_FILE
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import fingerprint, name_of


@click.group()
def identity() -> None:
    """Who this member is: the certificate and fingerprint its peers pin.

    \b
    Examples:
      zaibei identity show
      zaibei identity create --config zaibei.toml      before the first start
    """


@identity.command()
@target_options
@click.option("--block", is_flag=True, help="Only the block for a source's file.")
@styled
def show(console: Console, block: bool) -> None:
    """Name, fingerprint, certificate, and the block a source puts into its file. The private keys are never shown.

    \b
    Examples:
      zaibei identity show --data ./zaibei-data
      zaibei identity show --block >> source.toml
    """
    _show(console, effective().config, block)


@identity.command()
@target_options
@styled
def create(console: Console) -> None:
    """Make the identity before the first start, so that peers can pin it.

    An existing one stays as it is.

    \b
    Example:
      zaibei identity create --config zaibei.toml
    """
    config = effective().config
    prepare_folder(config.member.data)
    own_identity(config)
    _show(console, config)


def _show(console: Console, config: MemberConfig, alone: bool = False) -> None:
    path = config.member.identity_folder / CERTIFICATE_FILE
    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        raise ZaibeiError(
            Code.NOT_FOUND, f"no identity in {path.parent} yet. Next: `zaibei identity create`, or the first `zaibei up` makes it"
        ) from None
    name, printed = name_of(pem), fingerprint(pem)
    certificate = base64.b64encode(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)).decode()
    feed = [str(address) for address in config.listen.feed if address.port]
    block = f'[[member]]\nname = "{name}"\nfingerprint = "{printed}"\ncertificate = "{certificate}"\n'
    if feed:
        block += f'#push = "{feed[0]}"    # only for a source that calls out and listens nowhere: as it reaches us\n'
    about = described(pem)
    document = {
        "name": name,
        "fingerprint": printed,
        "certificate": certificate,
        "feed": feed,
        "file": str(path),
        "block": block,
        **about,
    }
    if alone:
        console.answer(document, block)
        return
    console.answer(
        document,
        pairs(
            [
                ("name", name),
                ("fingerprint", printed),
                ("serial", about["serial"]),
                ("issuer", about["issuer"]),
                ("names", " ".join(about["names"])),
                ("ends", f"{about['ends']} (in {about['ends_days']} days)"),
                ("file", path),
                ("sources push to", " ".join(feed)),
            ]
        ),
        "\nFor a source's file; compare the fingerprint by another way than the file itself:\n",
        block,
    )


def described(pem: bytes) -> dict[str, Any]:
    """What a person asks of a certificate: serial number, issuer, names, end."""
    certificate = x509.load_pem_x509_certificate(pem)
    names: list[str] = []
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = [str(one.value) for one in extension.value]
    ends = certificate.not_valid_after_utc
    own = certificate.issuer == certificate.subject
    return {
        "serial": f"{certificate.serial_number:x}",
        "issuer": "itself (to be pinned)" if own else certificate.issuer.rfc4514_string(),
        "names": names,
        "ends": f"{ends:%Y-%m-%d %H:%M:%S} UTC",
        "ends_s": int(ends.timestamp()),
        "ends_days": int((ends - dt.datetime.now(dt.UTC)).total_seconds() // 86_400),
    }
