"""Recipes: one YAML file is one reproducible run."""
