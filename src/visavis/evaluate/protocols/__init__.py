"""Protocols: what is compared, and how it is judged."""
