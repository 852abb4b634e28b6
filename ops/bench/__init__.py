"""`make bench`: one table, every stage in µs a record or request, peers side by side in the same run where installed.

Figures are whole-run figures of this machine; machines are shared and noisy, so compare ratios inside one run.
"""
