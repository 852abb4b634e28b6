"""Registration over the Handle protocol: who asks proves who it is, its rights are looked up, its change goes to the desk.

| file | what |
| --- | --- |
| challenges | requests that wait for the proof of who sent them |
| permits | may this key do it, by HS_ADMIN values and groups of them |
| edits | from an operation and the record that is there to the record that shall be |
| codes | which response code tells a trouble of ours |
| edge_registrar, edge_work, edge_look | messages in and out; carrying out; reading |
"""
