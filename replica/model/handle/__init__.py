"""Codec of the Handle protocol (2.11): values, messages, datagrams, streams and JSON as pure functions of octets.

No sockets, clocks or randomness in here. Their bad octets raise `ProtocolFault`, our misuse raises `CodecMisuse`.

| file | what |
| --- | --- |
| codes | numbers and limits of the protocol |
| names | folding, prefix and suffix, choice of a server |
| values, types | values, stored records; HS_SITE, HS_ADMIN, HS_VLIST |
| message, bodies | whole messages and what is in them |
| admin_bodies, proofs | challenges, sessions, credentials; what proves a key |
| answers | the quick way of a server for plain resolutions |
| fragments, stream | UDP datagrams, TCP streams |
| json_api, json_read | the JSON interface, written and read |
"""
