"""What tells operators how the registry does: log lines, metrics, traces, and what joins the three.

Anything of the registry may import this package; it imports settings and errors, and the exporter (a process of its
own) the catalogue. Nothing of it is needed for a decision: where it fails, the registry goes on.
"""
