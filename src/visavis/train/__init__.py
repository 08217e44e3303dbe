"""Recipes, the training loop and what it stands on: data loading, optimisers, devices, checkpoints, the logbook."""
