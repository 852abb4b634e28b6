"""Servers for Handle, HTTP and gRPC."""
