"""Pair lists in every dialect of the field."""
