"""Train the four reference systems, scaled down, on the same people and print one table.

    python benchmarks/four_systems.py [--data generated lfw-dev] [--work DIR] [--only SYSTEM ...]

Generated people: 300 to train on, 150 others to judge by. Real ones: ../shared/lfw-dev, its train identities and its
fold 7.
Every system is trained by the command in the table, with the same seed, on one thread, and judged on the same pairs of
people it never saw. Finished runs in --work are not trained again. Differences are tested on the same pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LFW = Path("..") / "shared" / "lfw-dev"
STEPS = {"generated": 400, "lfw-dev": 500}
TRIPLET_STEPS = {"generated": 150, "lfw-dev": 150}
REPLICATES = 4000


@dataclass(frozen=True)
class System:
    """A row: which recipe, started from which other row, and what it stands for."""

    recipe: str
    shows: str
    init: str = ""
    args: tuple[str, ...] = ()


SYSTEMS = {
    "softmax": System("massface-softmax-small", "MassFace, stage 1"),
    "sphereface": System("sphereface-small", "SphereFace, A-Softmax m = 4"),
    "cosface": System("massface-cosface-small", "MassFace, stage 1 (CosFace)"),
    "arcface": System("arcface-small", "ArcFace"),
    "triplet": System("massface-triplet-small", "MassFace, stage 2 from softmax", init="softmax"),
    "deepid": System("deepid-small", "DeepID, cosine"),
}
CLAIMS = (
    ("ArcFace is better than softmax", "arcface", "softmax"),
    ("ArcFace is better than SphereFace", "arcface", "sphereface"),
    ("ArcFace is better than CosFace", "arcface", "cosface"),
    ("CosFace is better than softmax", "cosface", "softmax"),
    ("SphereFace is better than softmax", "sphereface", "softmax"),
    ("Triplet fine-tuning improves its softmax start", "triplet", "softmax"),
    ("Joint Bayesian improves on cosine for DeepID", "deepid-joint-bayesian", "deepid"),
)


def run(words: list[str], log: Path) -> float:
    """Run a command at the repository's root; seconds it took."""
    begin = time.monotonic()
    with log.open("w") as file:
        done = subprocess.run(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\nfailed: {log.read_text()[-2000:]}")
    return time.monotonic() - begin


def sources(data: str, work: Path) -> tuple[list[str], Path, Path]:
    """Options that name the training data, and the pictures and pairs to judge by; generated faces are drawn first."""
    if data == "lfw-dev":
        names = ["--data.source", str(LFW), "--data.identities", str(LFW / "train_identities.txt")]
        return names, ROOT / LFW, ROOT / LFW / "valid_pairs.txt"
    train, judge = work / "generated" / "train", work / "generated" / "judge"
    for folder, first, options in (
        (train, 0, ["--identities", "300", "--images-per-identity", "12"]),
        (judge, 5000, ["--identities", "150", "--images-per-identity", "8", "--pairs", "3000"]),
    ):
        if not (folder / "landmarks.txt").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            words = [sys.executable, "-m", "visavis", "synth", str(folder), "--first-identity", str(first), *options]
            run([*words, "--workers", "0"], work / f"synth-{folder.name}.log")
    return ["--data.source", str(train)], judge, judge / "pairs.txt"


def train(name: str, data: str, work: Path, seed: int) -> dict[str, Any]:
    """Train one row if it is not there yet."""
    system, out = SYSTEMS[name], work / data / name
    note = out / "four_systems.json"
    if note.is_file():
        return json.loads(note.read_text())
    where, _, _ = sources(data, work)
    steps = TRIPLET_STEPS[data] if system.init else STEPS[data]
    words = [system.recipe, *where, "--data.synthetic.identities", "0", "--evaluate.synthetic_identities", "0"]
    words += ["--loop.steps", str(steps), "--loop.threads", "1", "--loop.device", "cpu", "--seed", str(seed)]
    if system.init:
        words += ["--init", str(work / data / system.init)]
        if data == "lfw-dev":  # half of its people have two pictures at most
            words += ["--data.min_images", "2", "--data.images_per_class", "2"]
    if not system.init and system.recipe != "deepid-small":
        words += ["--backbone.args.width", "16"]
    if system.recipe == "deepid-small":
        words += ["--data.identities", str(people(data, where, work)[0])]
    if not system.init and data == "lfw-dev":
        words += ["--augment.brightness", "0.2", "--augment.erase", "0.3"]
    if out.exists():
        raise SystemExit(f"{out} holds an unfinished run; remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    seconds = run([sys.executable, "-m", "visavis", "train", *words, "--out", str(out)], work / f"{data}-{name}.log")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    speed = float(np.median([line["images_per_second"] for line in lines if "images_per_second" in line]))
    shown = " ".join(["visavis train", *words]).replace(str(work), "WORK")
    found = {"command": shown, "seconds": seconds, "images_per_second": speed, "steps": steps}
    note.write_text(json.dumps(found))
    return found


def similarities(name: str, data: str, work: Path) -> Any:
    """Scores of the held-out pairs by a trained row."""
    from visavis.data.pairs import check_pairs, read_pairs
    from visavis.data.sources import open_source
    from visavis.deploy.embedders import load_embedder
    from visavis.evaluate.verification import pair_similarities
    from visavis.vision.preprocessing import fit_crops

    _, judge, listed = sources(data, work)
    source, pairs = open_source(judge), read_pairs(listed)
    pictures = [source.image(int(i)) for i in check_pairs(pairs, source)]
    embedder: Any = load_embedder(work / data / name)
    embeddings = embedder.embed(fit_crops(np.stack(pictures), embedder.spec))
    return pair_similarities(embeddings, pairs.reference, pairs.probe)


def people(data: str, where: list[str], work: Path) -> tuple[Path, Path]:
    """Lists of training people: four fifths for DeepID's network, the rest for Joint Bayesian (paper, section 4)."""
    from visavis.data.sources import open_source

    lists = work / f"{data}-network.txt", work / f"{data}-scorer.txt"
    if data == "lfw-dev":
        names = (ROOT / LFW / "train_identities.txt").read_text(encoding="utf-8").split()
    else:
        names = list(open_source(where[1]).identities)
    part = len(names) * 4 // 5
    for path, chosen in zip(lists, (names[:part], names[part:]), strict=True):
        path.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return lists


def joint_bayesian(data: str, work: Path) -> Any:
    """Scores of the held-out pairs by PCA and Joint Bayesian, learnt from people DeepID's network has not seen."""
    from visavis.data.pairs import check_pairs, read_pairs
    from visavis.data.sources import open_source
    from visavis.deploy.embedders import load_embedder
    from visavis.evaluate.joint_bayesian import PairScorer
    from visavis.vision.preprocessing import fit_crops

    where, judge, listed = sources(data, work)
    learn, held_out, pairs = open_source(ROOT / where[1]), open_source(judge), read_pairs(listed)
    learn = learn.only(people(data, where, work)[1].read_text(encoding="utf-8").split())
    embedder: Any = load_embedder(work / data / "deepid")

    def embed(source: Any, wanted: Any) -> Any:
        parts = [wanted[i : i + 512] for i in range(0, len(wanted), 512)]
        crops = (fit_crops(np.stack([source.image(int(i)) for i in part]), embedder.spec) for part in parts)
        return np.concatenate([embedder.embed(c) for c in crops])

    rows = embed(held_out, check_pairs(pairs, held_out))
    scorer = PairScorer.fit(embed(learn, np.arange(len(learn))), learn.labels, dim=100)
    return scorer.score(rows[pairs.reference], rows[pairs.probe])


def figures(scores: Any, pairs: Any) -> dict[str, Any]:
    """Accuracy over folds with its interval, EER, AUC and TMR."""
    from visavis.evaluate.verification import verify_scores

    found = verify_scores(scores, pairs.genuine, pairs.fold)
    assert found.folds is not None
    values = found.to_dict()
    keep = {k: values[k] for k in ("auc", "eer", "tmr_at_fmr")}
    accuracy = {k: values["accuracy"][k] for k in ("mean", "std", "interval")}
    return {"accuracy": accuracy, **keep, "right": found.folds.match == pairs.genuine}


def compared(better: Any, worse: Any, genuine: Any, right: tuple[Any, Any]) -> dict[str, Any]:
    """Paired bootstrap over the pairs: intervals of the differences in accuracy and AUC."""
    from visavis.evaluate.curves import error_curve

    rng, n = np.random.default_rng(0), len(genuine)
    gain = right[0].astype(float) - right[1].astype(float)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=REPLICATES) @ gain / n
    areas = []
    for _ in range(300):
        i = rng.integers(0, n, n)
        areas.append(error_curve(better[i], genuine[i]).auc - error_curve(worse[i], genuine[i]).auc)
    accuracy = [float(v) for v in np.quantile(drawn, [0.025, 0.975])]
    area = [float(v) for v in np.quantile(areas, [0.025, 0.975])]
    whole = error_curve(better, genuine).auc - error_curve(worse, genuine).auc
    return {"accuracy": float(gain.mean()), "accuracy_interval": accuracy, "auc": whole, "auc_interval": area}


def verdict(found: dict[str, Any]) -> str:
    """Shown or denied only where an interval leaves out 0 and the other measure does not say the opposite."""
    (al, ah), (bl, bh) = found["accuracy_interval"], found["auc_interval"]
    if (al > 0 or bl > 0) and ah > 0 and bh > 0:
        return "shown"
    if (ah < 0 or bh < 0) and al < 0 and bl < 0:
        return "denied: the other way round"
    return "not shown: within chance"


def markdown(result: dict[str, Any]) -> str:
    """The table and the claims, for docs/results.md."""
    lines = []
    for data, part in result["data"].items():
        lines += [f"### {data}", "", "| system | accuracy (95 % interval) | EER | AUC | TMR at FMR 1e-2 | minutes |"]
        lines += ["|---|---|---|---|---|---|"]
        for name, row in part["systems"].items():
            a, tmr = row["accuracy"], row["tmr_at_fmr"].get("1e-2")
            low, high = (100 * v for v in a["interval"])
            mean = f"{100 * a['mean']:.2f} % ({low:.2f} to {high:.2f})"
            share = f"{100 * tmr:.1f} %" if tmr is not None else "-"
            rest = f"{100 * row['eer']:.2f} % | {row['auc']:.4f} | {share} | {row['seconds'] / 60:.1f}"
            lines.append(f"| {row['shows']} (`{name}`) | {mean} | {rest} |")
        lines += ["", "| claim | accuracy (95 % interval, points) | AUC (95 % interval) | |", "|---|---|---|---|"]
        for claim in part["claims"]:
            (al, ah), (bl, bh) = claim["accuracy_interval"], claim["auc_interval"]
            lines.append(
                f"| {claim['claim']} | {100 * claim['accuracy']:+.2f} ({100 * al:+.2f} to {100 * ah:+.2f}) "
                f"| {claim['auc']:+.4f} ({bl:+.4f} to {bh:+.4f}) | {claim['verdict']} |"
            )
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, judge, compare, write."""
    from visavis.data.pairs import read_pairs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "four-systems")
    parser.add_argument("--only", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "four_systems.json")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "benchmark": "four_systems",
        "command": "python benchmarks/four_systems.py",
        "seed": args.seed,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": 1},
        "versions": {n: version(n) for n in ("torch", "numpy")} | {"python": platform.python_version()},
        "data": {},
    }
    if args.out.is_file():  # what another data set gave stays
        before = json.loads(args.out.read_text())
        if before.get("seed") == args.seed:
            result["data"] = {name: part for name, part in before["data"].items() if name not in args.data}
    for data in args.data:
        rows: dict[str, Any] = {}
        scores: dict[str, Any] = {}
        _, _, listed = sources(data, work)
        pairs = read_pairs(listed)
        for name in args.only:
            made = train(name, data, work, args.seed)
            scores[name] = similarities(name, data, work)
            rows[name] = {"shows": SYSTEMS[name].shows, **made, **figures(scores[name], pairs)}
            print(f"{data} {name}: {100 * rows[name]['accuracy']['mean']:.2f} %, {made['seconds']:.0f} s", flush=True)
        if "deepid" in rows:
            scores["deepid-joint-bayesian"] = joint_bayesian(data, work)
            found = figures(scores["deepid-joint-bayesian"], pairs)
            rows["deepid-joint-bayesian"] = {**rows["deepid"], **found, "shows": "DeepID, Joint Bayesian"}
        right = {name: row.pop("right") for name, row in rows.items()}
        claims = []
        for claim, better, worse in CLAIMS:
            if better in scores and worse in scores:
                found = compared(scores[better], scores[worse], pairs.genuine, (right[better], right[worse]))
                claims.append({"claim": claim, "better": better, "worse": worse, **found, "verdict": verdict(found)})
        result["data"][data] = {"pairs": len(pairs), "systems": rows, "claims": claims}
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    result["commit"] = head.stdout.strip()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    args.out.with_suffix(".md").write_text(markdown(result) + "\n")
    print(markdown(result))


if __name__ == "__main__":
    main()
