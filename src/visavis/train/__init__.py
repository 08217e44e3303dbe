"""Recipes and the training loop: data loading, objective, optimizers, schedules, checkpoints, fine-tuning."""
