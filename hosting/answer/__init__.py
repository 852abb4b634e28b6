"""What is answered to one question: pure rules over a catalog, stored octets and a source's view.

Nothing here reads a socket or a clock.
"""
