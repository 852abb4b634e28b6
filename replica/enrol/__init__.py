"""How members and sources get certificates: one-time tokens, requests, and the service that answers them."""
