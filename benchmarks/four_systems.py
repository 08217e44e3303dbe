"""Train the four reference systems, scaled down, on the same people and print one table.

    python benchmarks/four_systems.py [--data generated lfw-dev] [--seeds 0 1] [--only SYSTEM ...] [--work DIR]

Generated people: 800 to train on, 200 others to judge by. Real ones: ../shared/lfw-dev, its train identities and its
fold 7. Every system is its recipe as it stands (`visavis recipes NAME`): the networks of MassFace, SphereFace and
ArcFace, their steps, crops and optimizer are the same, only the loss differs. Scales and margins were chosen on
generated people that are in none of these sets (docs/results.md). Finished runs in --work are not trained again;
--train-only leaves the judging for later. Judging and comparing: four_systems_table.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import four_systems_table as table
import harness
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LFW = Path("..") / "shared" / "lfw-dev"
DATA = ("generated", "lfw-dev")
CONTROL_STEPS = 2500


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
    "cosface": System("massface-cosface-small", "MassFace, stage 1 with CosFace"),
    "arcface": System("arcface-small", "ArcFace"),
    "arcface-32": System("arcface-small", "ArcFace at CosFace's scale", args=("--head.args.scale", "32")),
    "triplet": System("massface-triplet-small", "MassFace, stage 2 from softmax", init="softmax"),
    "softmax-longer": System(
        "massface-softmax-small",
        "softmax alone for as many steps as both stages",
        args=("--loop.steps", str(CONTROL_STEPS)),
    ),
    "deepid": System("deepid-small", "DeepID, cosine"),
}


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
        (train, 0, ["--identities", "800", "--images-per-identity", "10"]),
        (judge, 5000, ["--identities", "200", "--images-per-identity", "8", "--pairs", "6000"]),
    ):
        if not (folder / "landmarks.txt").is_file():
            folder.parent.mkdir(parents=True, exist_ok=True)
            words = [sys.executable, "-m", "visavis", "synth", str(folder), "--first-identity", str(first), *options]
            run([*words, "--workers", "0"], work / f"synth-{folder.name}.log")
    return ["--data.source", str(train)], judge, judge / "pairs.txt"


def options_of(name: str, data: str, work: Path, seed: int) -> list[str]:
    """The recipe and what is set beside it: where the data are, and for lfw-dev how its crops lie and vary."""
    system = SYSTEMS[name]
    where, _, _ = sources(data, work)
    words = [system.recipe, *where, "--data.synthetic.identities", "0", "--evaluate.synthetic_identities", "0"]
    words += ["--loop.threads", "1", "--loop.device", "cpu", "--seed", str(seed), *system.args]
    if system.init:
        words += ["--init", str(work / data / f"{system.init}-{seed}")]
    if name == "deepid":
        words += ["--data.identities", str(people(data, where, work)[0])]
    if data == "lfw-dev":
        words += ["--preprocess.template", "sphereface-left"]
        words += ["--augment.brightness", "0.2", "--augment.random_erasing", "0.3"]
        if name != "deepid":
            words += ["--preprocess.size", "[56,48]"]
        if system.init:  # three quarters of its people have one picture, most others two
            words += ["--data.min_images", "2", "--data.images_per_class", "2"]
    return words


def train(name: str, data: str, work: Path, seed: int) -> dict[str, Any]:
    """Train one row if it is not there yet."""
    out = work / data / f"{name}-{seed}"
    note = out / "four_systems.json"
    if note.is_file():
        return json.loads(note.read_text())
    if out.exists():
        raise SystemExit(f"{out} holds an unfinished run; remove it")
    words = options_of(name, data, work, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    log = work / f"{data}-{name}-{seed}.log"
    seconds = run([sys.executable, "-m", "visavis", "train", *words, "--out", str(out)], log)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    speed = float(np.median([line["images_per_second"] for line in lines if "images_per_second" in line]))
    shown = " ".join(["visavis train", *words]).replace(str(work), "WORK")
    found = {"command": shown, "seconds": seconds, "images_per_second": speed, "steps": lines[-1].get("step")}
    note.write_text(json.dumps(found))
    return found


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


def judged(data: str, only: list[str], seeds: list[int], work: Path) -> dict[str, Any]:
    """Scores of every run on the held-out pairs, their figures and the claims."""
    where, judge, listed = sources(data, work)
    scores: dict[str, list[Any]] = {}
    rows: dict[str, Any] = {}
    for name in only:
        made = [train(name, data, work, seed) for seed in seeds]
        runs = [work / data / f"{name}-{seed}" for seed in seeds]
        scores[name] = [table.similarities(path, judge, listed) for path in runs]
        rows[name] = {"shows": SYSTEMS[name].shows, "runs": made}
        if name == "deepid":
            scorer = people(data, where, work)[1]
            bayes = [table.joint_bayesian(path, judge, listed, ROOT / where[1], scorer) for path in runs]
            scores["deepid-joint-bayesian"] = bayes
            rows["deepid-joint-bayesian"] = {"shows": "DeepID, PCA and Joint Bayesian", "runs": made}
    return table.judge(rows, scores, listed)


def main() -> None:
    """Train what is missing, judge, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "four-systems")
    parser.add_argument("--only", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "four_systems.json")
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for data in args.data:
        for seed in args.seeds:
            for name in args.only:
                made = train(name, data, work, seed)
                print(f"{data} {name}, seed {seed}: {made['seconds']:.0f} s", flush=True)
    if args.train_only:
        return
    result: dict[str, Any] = {
        "benchmark": "four_systems",
        "seeds": args.seeds,
        **harness.about(threads=1),
        "data": {data: judged(data, args.only, args.seeds, work) for data in args.data},
    }
    harness.write(result, args.out, show=False)
    args.out.with_suffix(".md").write_text(table.markdown(result) + "\n")
    print(table.markdown(result))


if __name__ == "__main__":
    main()
