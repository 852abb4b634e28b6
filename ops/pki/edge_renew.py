"""Renewal over the network: the member that enrols signs again while the present certificate is good."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from replica.enrol.edge_client import renew
from replica.model.edge_identity import Identity, ensure_identity, key_pem, new_tls_key, replace_certificate
from replica.model.edge_trust import TrustFiles
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Trusts
from replica.model.trust import Authority


async def renew_over_network(
    identity: Identity, folder: Path, reach: Sequence[str], trusts: Trusts, files: TrustFiles
) -> Identity:
    """Ask, check what came, put it in place; the CA's revocation list is renewed too, where we keep exactly one.

    Raises:
        ZaibeiError: nobody answers, the member refuses, or what it sent is not for our keys.
    """
    tls = new_tls_key()
    answer = await renew(identity, tls, reach, trusts)
    leaf = x509.load_pem_x509_certificates(answer.certificate)[0]
    if leaf.public_key() != tls.public_key():
        raise ZaibeiError(Code.VERIFICATION_FAILED, "the certificate that came is for another key; ours stays as it is")
    replace_certificate(folder, answer.certificate, key_pem(tls))
    if len(files.lists) == 1 and answer.lists:
        Authority.parse([path.read_bytes() for path in files.roots], [answer.lists])  # signed by our CA, or nothing is replaced
        beside = files.lists[0].with_suffix(".new")
        beside.write_bytes(answer.lists)
        os.replace(beside, files.lists[0])
    return ensure_identity(folder, identity.name)
