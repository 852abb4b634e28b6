"""The conformance kit: does a feed, written by anybody in any language, keep the rules? It looks for itself, trusts no answer."""
