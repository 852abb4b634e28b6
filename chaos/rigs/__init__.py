"""Rigs that need root: loss of power, small disks, memory limits and networks of namespaces; what is missing is named, never
passed over."""
