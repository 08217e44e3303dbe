"""Evaluations compared in pairs, by seeds, by their hardest comparisons."""
