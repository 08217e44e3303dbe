"""Before and after a fine-tuning: embeds the pairs with both models, writes before_after.json, returns the table."""

from __future__ import annotations

import json
from typing import Any


def write_before_after(recipe: Any, run: Any) -> list[Any]:
    """Compare `recipe.init` with the run's best model on the run's pairs and on the old ones, as far as there are any.

    Returns the table to print, in a list; an empty list when there is nothing to compare on.
    """
    from visavis.cli.progress import make_bar
    from visavis.data.validate.trained_on import read_trained_on
    from visavis.evaluate.report.report import plain
    from visavis.files import write_atomically
    from visavis.models.torch import TorchEmbedder, load_model
    from visavis.train.finetune.before_after import (
        OLD,
        OWN,
        before_and_after,
        comparison_table,
        open_old_validation_set,
    )

    (old_network, card), (network, _) = load_model(recipe.init), load_model(run.model)
    old = open_old_validation_set(recipe, card.preprocess)
    validation_sets = [
        (name, validation_set) for name, validation_set in ((OWN, run.validation_set), (OLD, old)) if validation_set
    ]
    if not validation_sets:
        print("nothing to compare with the model before: give pairs with --evaluate.pairs FILE (--evaluate.source SRC)")
        return []
    with make_bar() as bar:
        bar.add_task("before and after", total=None, detail="")
        models = [TorchEmbedder(n, card.preprocess, batch_size=128) for n in (old_network, network)]
        found = before_and_after(models[0], models[1], validation_sets, trained_on=read_trained_on(run.model))
    values = {"before": str(recipe.init), "after": str(run.model), **{c.name.split()[0]: c.to_dict() for c in found}}
    write_atomically(run.folder / "before_after.json", json.dumps(plain(values), indent=2, allow_nan=False).encode())
    if not old:
        print(
            "no forgetting check: name pairs the model should keep its accuracy on with --evaluate.retention_source SRC"
        )
    return [comparison_table(found)]
