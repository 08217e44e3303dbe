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
    from visavis.card import write_atomically
    from visavis.cli.progress import make_bar, training_progress
    from visavis.deploy.embedders import load_embedder
    from visavis.evaluate.protocol import Settings
    from visavis.evaluate.runner import evaluate
    from visavis.evaluate.tables import Table
    from visavis.evaluate.training import training_plots
    from visavis.export.onnx import export_onnx
    from visavis.train.judge import synthetic_judge
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
    judge = synthetic_judge(recipe, recipe.preprocess.spec())
    exported = export_onnx(trained.model, crops=judge.crops[:256])
    parity = f"{exported.parity.worst:.1e}"
    print(f"     {exported.path}: max 1 - cos = {parity} over {exported.parity.crops} crops (limit 1e-5)", flush=True)

    print(f"3/3  evaluating the exported model on {recipe.evaluate.synthetic_identities} people never seen", flush=True)
    with make_bar() as bar:
        task = bar.add_task("pictures", total=len(judge.crops), detail="")
        report = evaluate(
            load_embedder(exported.path),
            judge.pairs,
            judge.images,
            settings=Settings(seed=args.seed),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            scores=out / "scores.npz",
            model={"name": recipe.name, "path": str(exported.path)},
            baseline=True,
        )
    rows = (
        ("training", f"{trained.steps} steps of {recipe.loop.batch_size} pictures"),
        ("images per second", f"{trained.images_per_second:.0f}"),
        ("export parity, max 1 − cos", parity),
        ("everything took", f"{time.monotonic() - begun:.0f} s"),
    )
    report = report.with_additions(
        tables=(Table("How it was made", ("what", "how much"), rows),), plots=training_plots(out)
    )
    write_atomically(out / "report.json", report.to_json().encode())
    write_atomically(out / "report.html", report.to_html().encode())
    print(f"\n{report}\n\nreport: {out / 'report.html'}\nmodel:  {trained.model}")
    print(f"try it: visavis verify {trained.model} A.jpg B.jpg")
    return 0
