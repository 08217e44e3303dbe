"""Decoded pictures on disk: how and when."""
