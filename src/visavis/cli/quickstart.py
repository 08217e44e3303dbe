"""`visavis quickstart`: generated faces -> train -> export -> evaluate -> report, in one run folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/quickstart-TIME)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of everything random (default 0)")
    parser.add_argument("--steps", metavar="N", type=int, help="train for fewer or more steps than the recipe's")


def run(args: argparse.Namespace) -> int:
    """Do it all and print the table."""
    from visavis.cli.progress import training_progress
    from visavis.cli.run_report import write_run_report
    from visavis.export.gates.parity import Crops
    from visavis.export.model import open_model
    from visavis.export.pipeline import export_model
    from visavis.train.loop import train
    from visavis.train.recipe import load_recipe

    begun = time.monotonic()
    seed = [f"--seed={args.seed}", f"--data.synthetic.seed={args.seed}"]
    steps = [f"--loop.steps={args.steps}"] if args.steps else []
    recipe = load_recipe("quickstart", [*seed, *steps])
    out = Path(args.out or f"runs/quickstart-{time.strftime('%Y%m%d-%H%M%S')}")

    print(f"1/3  training on {recipe.data.synthetic.identities} generated people -> {out}", flush=True)
    with training_progress() as progress:
        trained = train(recipe, out, observer=progress)
    print(f"     {trained.steps} steps at {trained.images_per_second:.0f} images/s", flush=True)

    print("2/3  export to ONNX, checked against the weights", flush=True)
    validation_set = trained.validation_set
    assert validation_set is not None  # the recipe names held-out people
    crops = Crops(validation_set.crops[:256], validation_set.pairs.images[:256], "unseen generated faces")
    exported = export_model(open_model(trained.model), "onnx", crops)
    parity = f"{exported.parity.maximum:.1e}"
    print(f"     {exported.path}: max 1 - cos = {parity} over {len(crops.images)} crops (limit 1e-5)", flush=True)

    print(f"3/3  evaluating the exported model on {recipe.evaluate.synthetic_identities} people never seen", flush=True)
    rows = [("export parity, max 1 − cos", parity), ("everything took", f"{time.monotonic() - begun:.0f} s")]
    report = write_run_report(trained, exported.path, rows, seed=args.seed)
    print(f"\n{report}\n\nreport: {out / 'report.html'}\nmodel:  {trained.model}")
    print(f"try it: visavis verify {trained.model} A.jpg B.jpg")
    return 0
