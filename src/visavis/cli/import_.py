"""`visavis import`: published weights become a model folder."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visavis.models.import_trial import Run
    from visavis.vision.preprocessing import PreprocessSpec

_EPILOG = """\
Recognized by their tensors' names (--backbone auto): arcface_torch iResNet, MobileFaceNet and ViT, sphereface_pytorch,
MobileFaceNet_Pytorch. Of anything else say --backbone and --preprocess. Only tensors are read; no pickle is executed.
What is told is tried on generated people, beside the other readings; a better one is named, and nothing is written.

  visavis import mobilefacenet.ckpt --out mbf
  visavis import r50.pth --backbone iresnet50 --out r50 --license "non-commercial research"
  visavis import w600k_r50.onnx --preprocess size=112x112,mean=127.5,std=127.5 --out buffalo
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's options."""
    parser.epilog = _EPILOG
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=".safetensors, .pt, .pth, .ckpt or .onnx")
    parser.add_argument("--backbone", default="auto", metavar="NAME", help="whose weights these are (default: auto)")
    parser.add_argument("--out", metavar="MODEL", help="model folder to write (default: the file's name here)")
    form = (
        "size=112x96,channels=RGB,mean=127.5,std=128,\ntemplate=arcface|sphereface|x/y/x/y/... (five points),\n"
        "flip=none|sum|concat,antialias=none|area|box"
    )
    parser.add_argument("--preprocess", action="append", default=[], metavar="k=v,...", help=form)
    parser.add_argument(
        "--args", default="{}", metavar="JSON", help='the backbone\'s arguments, as {"conv_bias": true}'
    )
    parser.add_argument("--dim", type=int, metavar="N", help="embedding length, where the weights do not show it")
    parser.add_argument("--key", metavar="NAME", help="entry of the checkpoint that holds the state dict")
    parser.add_argument(
        "--output", metavar="NAME", help="the graph's output that holds the embedding (ONNX; the first)"
    )
    parser.add_argument(
        "--as-told", action="store_true", help="take the preprocessing as told, without trying it on generated people"
    )
    parser.add_argument("--license", default="not stated", metavar="TEXT", help="license of the weights (an SPDX word)")
    parser.add_argument("--code-license", default="", metavar="TEXT", help="license of the code that trained them")
    parser.add_argument("--data-license", default="", metavar="TEXT", help="license of the training data")
    parser.add_argument("--redistribution", default="", metavar="TEXT", help="terms of passing the weights on")
    parser.add_argument("--consent", default="", metavar="TEXT", help="what the people pictured agreed to")
    parser.add_argument("--source", default="", metavar="TEXT", help="where the weights are from")
    parser.add_argument("--training-data", default="not stated", metavar="TEXT", help="what they were trained on")


def run(args: argparse.Namespace) -> int:
    """Read, recognize, fill strictly, write."""
    from pathlib import Path

    from rich.console import Console

    from visavis.errors import ModelFormatError
    from visavis.files import digest_of
    from visavis.models.card import NOT_STATED, LicenseTerms

    checkpoint = Path(args.checkpoint)
    out = Path(args.out or checkpoint.stem)
    terms = LicenseTerms(args.code_license, args.license, args.data_license, args.redistribution, args.consent)
    given: dict[str, Any] = {"license": terms, "training_data": args.training_data}
    if checkpoint.is_file():
        digest = digest_of(checkpoint)
        given["source"] = args.source or f"{checkpoint.name}, SHA-256 {digest[:16]}"
        given["notes"] = {"imported_from": checkpoint.name, "imported_sha256": digest}
    preprocess = parse_preprocess(",".join(args.preprocess))
    foreign_graph = args.backbone == "onnx" or (args.backbone == "auto" and checkpoint.suffix == ".onnx")
    if args.output and not foreign_graph:
        raise ModelFormatError("--output names an output of an ONNX graph; this is a checkpoint of weights")
    card, said = (_import_onnx if foreign_graph else _import_tensors)(args, out, preprocess, given)
    console = Console(highlight=False)
    console.print(f"[bold]{out}[/bold]: {card.backbone}, embedding {card.embedding_dim}", soft_wrap=True)
    for line in said:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    spec = card.preprocess
    console.print(
        f"  pictures {spec.size[0]}×{spec.size[1]} on the {spec.template_name} template, {spec.channels}, "
        f"mean {spec.mean}, std {spec.std}, flip {spec.flip}",
        soft_wrap=True,
        markup=False,
    )
    if card.license.weights == NOT_STATED:
        console.print("  no license is stated: find out before use, and record it with --license", soft_wrap=True)
    console.print(
        f"next: visavis calibrate {out} PHOTOS     (a folder per person; then verify decides)",
        soft_wrap=True,
        markup=False,
    )
    return 0


def _import_tensors(
    args: argparse.Namespace, out: Any, preprocess: dict[str, Any], given: dict[str, Any]
) -> tuple[Any, list[str]]:
    from visavis.errors import ModelFormatError
    from visavis.models.card import ModelCard
    from visavis.models.checkpoints import read_checkpoint
    from visavis.models.published import import_weights
    from visavis.models.torch import network_run, save_model

    try:
        arguments = json.loads(args.args)
    except ValueError as error:
        raise ModelFormatError(
            f'--args: expected JSON as {{"conv_bias": true}}, got {args.args!r} ({error})'
        ) from error
    if not isinstance(arguments, dict):
        raise ModelFormatError(f"--args: expected a JSON object, got {args.args!r}")
    state = read_checkpoint(args.checkpoint, key=args.key)
    got = import_weights(
        state, backbone=args.backbone, args=arguments, preprocess=preprocess, dim=args.dim, name=args.checkpoint
    )
    source = got.source.name if got.source is not None else "an unknown source"
    card = ModelCard(out.name, got.backbone, got.dim, got.preprocess, backbone_args=got.args, **given)
    tried = [] if args.as_told else _tried(network_run(got.network), got.preprocess)
    card = save_model(out, got.network, card)
    count = sum(p.numel() for p in got.network.parameters())
    said = [f"weights of {source}: {len(state) - len(got.dropped)} tensors, {count:,} parameters"]
    if got.dropped:
        said.append(f"left out, the training head: {', '.join(got.dropped)}")
    return card, said + tried


def _import_onnx(
    args: argparse.Namespace, out: Any, preprocess: dict[str, Any], given: dict[str, Any]
) -> tuple[Any, list[str]]:
    from visavis.models.import_onnx import import_onnx

    tried: list[str] = []

    def check(run: Run, spec: PreprocessSpec, *, pixels: bool) -> None:
        tried.extend(_tried(run, spec, pixels=pixels))

    card, said = import_onnx(
        args.checkpoint,
        out,
        preprocess=preprocess,
        given=given,
        output=args.output,
        check=None if args.as_told else check,
    )
    return card, said + tried


def _tried(run: Run, spec: PreprocessSpec, *, pixels: bool = False) -> list[str]:
    """What there is to say of a trial that was passed.

    Raises:
        ModelFormatError: it was not.
    """
    from visavis.cli.progress import phases
    from visavis.models.import_trial import try_readings

    with phases() as tell:
        tell("trying it on generated people", 0, 1)
        trial = try_readings(run, spec, pixels=pixels)
        tell("trying it on generated people", 1, 1)
    trial.require()
    said = [f"tried on {trial.people} generated people: AUC {trial.told.auc:.3f} as told"]
    others = ", ".join(f"{reading.auc:.3f} with {reading.words}" for reading in trial.others)
    said.append(f"  other readings: {others}")
    if trial.untried:
        said.append(f"  not tried, for time: {', '.join(trial.untried)}")
    hint = max(trial.others, key=lambda reading: reading.auc, default=trial.told)
    if hint.auc > trial.told.auc + 0.005:
        said.append(f"  {hint.words} may be right instead: too few people to tell; try both on your own pictures")
    return said


def parse_preprocess(text: str) -> dict[str, Any]:
    """Fields of a PreprocessSpec from `k=v,...`, as `size=112x96,template=sphereface,mean=127.5,std=128,flip=sum`.

    A size is HEIGHTxWIDTH; mean and std are one number for all channels or three as `r/g/b`, in pixel units (0–255); a
    template of one's own is its five points as `x/y/x/y/…`, in a crop of that size.

    Raises:
        ModelFormatError: an unknown key, an impossible value, or a key given twice.
    """
    from visavis.errors import ModelFormatError, unknown_name
    from visavis.vision.preprocessing import PreprocessSpec

    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.strip().partition("=")
        if key not in PreprocessSpec.__dataclass_fields__ or not value:
            what = "needs a value" if not value else unknown_name("key", key, PreprocessSpec.__dataclass_fields__)
            raise ModelFormatError(f"--preprocess: {part.strip()!r}: {what}")
        if key in fields:
            raise ModelFormatError(f"--preprocess: {key} is given twice")
        try:
            if key == "size":
                height, width = value.lower().split("x")
                fields[key] = (int(height), int(width))
            elif key == "template" and "/" in value:
                numbers = [float(v) for v in value.split("/")]
                fields[key] = tuple(zip(numbers[::2], numbers[1::2], strict=True))
            elif key in ("mean", "std"):
                numbers = [float(v) for v in value.split("/")]
                fields[key] = tuple(numbers * 3 if len(numbers) == 1 else numbers)
            else:
                fields[key] = value
        except ValueError as error:
            raise ModelFormatError(
                f"--preprocess: {part.strip()!r}: expected size=HEIGHTxWIDTH, mean=N or N/N/N, "
                f"template=x/y/x/y/... (five points), got {value!r}"
            ) from error
    return fields
