"""Registration over Handle messages and JSON: who asks proves who it is, its rights are looked up, its change goes to the desk.

| file | what |
| --- | --- |
| challenges | what waits for the proof of who sent it |
| permits | may this key do it, by HS_ADMIN values and groups of them |
| edits | from an operation and the record that is there to the record that shall be |
| codes | which response code tells a trouble of ours |
| json_asks, json_auth | the JSON API: what is asked, and who asks it |
| sessions | sessions of the Handle protocol: keys, counters, limits |
| edge_registrar, edge_json, edge_judge, edge_sessions | messages and requests in and out; proofs; sessions |
| edge_work, edge_look | carrying out; reading |
"""
