"""`visavis train RECIPE`: train a recipe into a run folder, or resume one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

TAKES_REST = True
EPILOG = """Any field of a recipe can be set: --SECTION.FIELD VALUE, e.g. --optimizer.lr 0.05 --head.args.margin 0.4
Several processes: torchrun --nproc-per-node 2 -m visavis train RECIPE ...
List the recipes: visavis recipes"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a recipe's name or a .yaml file")
    parser.add_argument(
        "--data",
        metavar="SRC",
        help="pictures to train on in place of the recipe's source\nand generated people (--data.generated adds them)",
    )
    parser.add_argument(
        "--out",
        metavar="RUN",
        help="the run folder (default: runs/NAME-TIME);\nan unfinished run of the same recipe there goes on",
    )
    parser.add_argument("--init", metavar="MODEL", help="start from this model's backbone")
    parser.add_argument(
        "--init-head", action="store_true", help="with --init RUN: also its class centers, of identities named the same"
    )
    parser.add_argument(
        "--with-classifier",
        action="store_true",
        help="keep the class centers in the model folders, for evaluate --classifier and export --with-classifier",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="what it would cost, measured here; the data may be absent"
    )
    parser.add_argument(
        "--devices", type=int, default=1, metavar="N", help="with --dry-run: processes sharing the work"
    )
    parser.add_argument("--resume", metavar="RUN", help="continue a run from its last checkpoint")


def run(args: argparse.Namespace) -> int:
    """Train and print what came of it."""
    from visavis.cli.finetune_report import write_before_after
    from visavis.cli.progress import training_progress
    from visavis.cli.run_report import write_run_report
    from visavis.errors import RecipeError
    from visavis.train.recipe import load_recipe

    if bool(args.resume) == bool(args.recipe):
        raise RecipeError("expected either a RECIPE or --resume RUN; the recipes: visavis recipes")
    if args.devices != 1 and not args.dry_run:
        raise RecipeError(
            "--devices says for --dry-run how many processes would share the work; start them with torchrun "
            f"--nproc-per-node {args.devices} -m visavis train RECIPE ..."
        )
    data = [f"--data.source={args.data}"] if args.data else []
    if args.resume:
        from visavis.train.run_folder import resume_recipe

        for name in ("out", "init", "init_head", "dry_run", "with_classifier"):
            if getattr(args, name):
                raise RecipeError(f"--{name.replace('_', '-')} has no effect on a resumed run; leave it out")
        recipe, out = resume_recipe(args.resume, [*data, *args.rest]), Path(args.resume)
    else:
        init = [f"--init={args.init}"] if args.init else []
        init += ["--finetune.init_head=true"] if args.init_head else []
        init += ["--head.keep_classifier=true"] if args.with_classifier else []
        recipe = load_recipe(args.recipe, [*data, *init, *args.rest])
        if args.dry_run:
            return show_cost(recipe, args.devices)
        out = Path(args.out or f"runs/{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    from visavis.distributed.launch import find_launch
    from visavis.train.loop import train

    launch = find_launch()
    if launch and launch.size > 1 and not (args.out or args.resume):
        raise RecipeError("several processes must agree on the run folder; name it with --out RUN")
    resume = True if args.resume else None
    if launch and launch.rank > 0:
        train(recipe, out, resume=resume)
        return 0
    with training_progress() as progress:
        result = train(recipe, out, resume=resume, observer=progress)
    print(f"{result.steps} steps at {result.images_per_second:.0f} images/s, {result.skipped_steps} skipped")
    tables = write_before_after(recipe, result) if recipe.init else []
    if result.validation_set:
        report = write_run_report(result, result.model, [], seed=recipe.seed, tables=tables)
        print(f"\n{report}\n\nreport: {out / 'report.html'}")
    else:
        print("\n\n".join(table.to_text() for table in tables))
    print(f"model: {result.model}")
    return 0


def show_cost(recipe: Any, devices: int) -> int:
    """Print what a recipe would cost."""
    from visavis.cli.progress import phases
    from visavis.train.cost import dry_run

    with phases() as progress:
        cost = dry_run(recipe, devices=devices, progress=progress)
    table = cost.to_table()
    width = max(len(name) for name, _ in table.rows)
    print("\n".join([table.title, *(f"  {name:{width}}  {value}" for name, value in table.rows), table.note]))
    return 0
