"""A small run for the loop."""

from visavis.train.recipe import parse_recipe


def tiny(folder, *, steps=4, **sections):
    values = {
        "name": "tiny",
        "data": {"source": str(folder), "workers": 0},
        "preprocess": {"size": [32, 32]},
        "augment": {"flip": 0.5, "shift": 0.05},
        "backbone": {"name": "small", "dim": 16, "args": {"width": 8}},
        "head": {"name": "arcface", "args": {"scale": 16.0, "margin": 0.2}},
        "optimizer": {"lr": 0.05, "clip_norm": 5.0},
        "loop": {"batch_size": 8, "steps": steps, "log_every": 2, "checkpoint_every": 100, "device": "cpu"},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_recipe(values)
