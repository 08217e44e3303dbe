"""One template, one of each sample, or as many as a subject's looks: who is found, at thresholds fixed on other people.

    visavis import ../shared/weights/mobilefacenet_casia_112x96.ckpt --out mbf
    python benchmarks/templates.py --model mbf --data ../shared/lfw-dev [--rounds 8]

People of at least 4 pictures are halved: on one half the pair threshold (FMR 1e-3) and each way's search threshold
(FPIR 1 %) are fixed, the other half is measured. Of each half one half is enrolled, the rest are strangers.

- ordinary: half of a person's pictures are enrolled, the others are searched.
- two looks: of people with 14 pictures or more, 10 are enrolled as they are and 2 with the look painted on (dark
  glasses, or a mask); searched are the others with the look. Everybody else is enrolled as before.

"by looks" is what `Gallery.enroll` does with a threshold, "one template" without; "every sample" takes each picture as
a template. A figure is the share of probes whose best candidate is right and reaches the threshold, over rounds of
drawing the halves anew; its 95 % interval comes from drawing the people again. Writes results/templates.json.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import RESULTS, about, write

from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.sqlite import Gallery
from visavis.deploy.recognizer import Recognizer
from visavis.vision.images import read
from visavis.vision.preprocessing import fit_crop

FMR, FPIR, MOST = 1e-3, 1e-2, 16
PLAIN = 10  # pictures as they are, of a person of two looks; 2 more have the look
Rows = np.ndarray


def glasses(crop: Rows) -> Rows:
    """Dark glasses over the eyes of an aligned 112×112 crop."""
    crop = crop.copy()
    crop[44:60, 24:90] = 15
    return crop


def mask(crop: Rows) -> Rows:
    """A mask over mouth and nose."""
    crop = crop.copy()
    crop[70:112, 22:92] = (170, 190, 210)
    return crop


LOOKS: dict[str, Callable[[Rows], Rows]] = {"dark glasses": glasses, "a mask": mask}


def embed(recognizer: Recognizer, files: Sequence[Path], change: Callable[[Rows], Rows] = lambda crop: crop) -> Rows:
    """Unit embeddings of aligned crops."""
    parts = []
    for start in range(0, len(files), 64):
        crops = [fit_crop(change(read(file)), recognizer.spec) for file in files[start : start + 64]]
        parts.append(recognizer.embedder.embed(np.stack(crops)))
    return np.concatenate(parts)


class People:
    """The embeddings of each person's pictures, plain and with each look."""

    def __init__(self, recognizer: Recognizer, root: Path) -> None:
        folders = [sorted(folder.iterdir())[:MOST] for folder in sorted(root.iterdir())]
        folders = [files for files in folders if len(files) >= 4]
        self.plain = [embed(recognizer, files) for files in folders]
        self.looks = {
            look: {k: embed(recognizer, files, change) for k, files in enumerate(folders) if len(files) >= PLAIN + 4}
            for look, change in LOOKS.items()
        }
        self.dim = recognizer.embedder.dim

    def pair_threshold(self, people: Sequence[int]) -> float:
        """Where FMR of the pairs of different people is reached."""
        rows = np.concatenate([self.plain[k] for k in people])
        label = np.repeat(np.arange(len(people)), [len(self.plain[k]) for k in people])
        first, second = np.triu_indices(len(rows), 1)
        impostor = np.sort((rows @ rows.T)[first, second][label[first] != label[second]])
        return float(impostor[-1 - int(FMR * len(impostor))])


class Half:
    """Half of the people: some enrolled, with probes of theirs, the others strangers."""

    def __init__(self, people: People, who: Sequence[int], look: str | None, rng: np.random.Generator) -> None:
        order = rng.permutation(who)
        inside, outside = order[: len(order) // 2], order[len(order) // 2 :]
        self.enrolled: list[Rows] = []
        self.probes: list[Rows] = []
        self.subject: list[int] = []
        self.rarer: list[bool] = []
        self.who = inside
        for k, person in enumerate(inside):
            rows, order = people.plain[person], rng.permutation(len(people.plain[person]))
            half, painted = (len(rows) + 1) // 2, people.looks[look].get(person) if look else None
            enrolled, rest, rare = rows[order[:half]], rows[order[half:]], rows[:0]
            if painted is not None:
                last = order[PLAIN + 2 :]
                enrolled = np.concatenate([rows[order[:PLAIN]], painted[order[PLAIN : PLAIN + 2]]])
                rest, rare = rows[last], painted[last]
            self.enrolled.append(enrolled)
            for probes, rarer in ((rest, False), (rare, True)):
                self.probes += list(probes)
                self.subject += [k] * len(probes)
                self.rarer += [rarer] * len(probes)
        self.strangers = np.concatenate([people.plain[person] for person in outside])

    def search(self, way: str, threshold: float, dim: int) -> Callable[[Rows], tuple[Rows, Rows]]:
        """What finds the best subject of each probe and its similarity."""
        if way == "every sample":
            rows = np.concatenate(self.enrolled)
            owner = np.repeat(np.arange(len(self.enrolled)), [len(e) for e in self.enrolled])
            return lambda probes: (owner[(probes @ rows.T).argmax(1)], (probes @ rows.T).max(1))
        with tempfile.TemporaryDirectory() as folder:
            gallery = Gallery(Path(folder) / "g.db", ModelIdentity("m", dim, "d" * 64), create=True)
            for k, rows in enumerate(self.enrolled):
                gallery.enroll(str(k), rows, threshold=threshold if way == "by looks" else None)
            gallery.refresh()
            templates, names = gallery._index.vectors.rows(0, len(gallery._index.ids)), gallery._index.ids.copy()
            number = {subject.id: int(subject.name) for subject in gallery.subjects()}
            gallery.close()
        owner = np.array([number[i] for i in names.tolist()])
        return lambda probes: (owner[(probes @ templates.T).argmax(1)], (probes @ templates.T).max(1))


WAYS = ("one template", "every sample", "by looks")


def one_round(people: People, look: str | None, seed: int, found: dict[str, Any]) -> None:
    """Fix thresholds on one half, measure on the other; adds hits by person, and matched strangers."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(people.plain))
    tune, test = order[: len(order) // 2], order[len(order) // 2 :]
    pair = people.pair_threshold(tune)
    tuned, tested = Half(people, tune, look, rng), Half(people, test, look, rng)
    probes, subject, rarer = np.stack(tested.probes), np.array(tested.subject), np.array(tested.rarer)
    for way in WAYS:
        strangers = np.sort(tuned.search(way, pair, people.dim)(tuned.strangers)[1])
        threshold = strangers[-1 - int(FPIR * len(strangers))]
        search = tested.search(way, pair, people.dim)
        who, similarity = search(probes)
        hit = (who == subject) & (similarity >= threshold)
        for i, k in enumerate(subject.tolist()):
            case = "ordinary" if look is None else f"rarer look: {look}" if rarer[i] else f"usual look beside {look}"
            if look is None or int(tested.who[k]) in people.looks[look]:
                found[case][way][int(tested.who[k])].append(bool(hit[i]))
        found["fpir"][way].append(float((search(tested.strangers)[1] >= threshold).mean()))


def figure(by_person: dict[int, list[bool]], replicates: int = 2000) -> dict[str, Any]:
    """The share of hits, and its interval from drawing people again."""
    hits, count = (np.array([f(v) for v in by_person.values()], float) for f in (sum, len))
    weights = np.random.default_rng(0).multinomial(len(hits), [1 / len(hits)] * len(hits), replicates)
    drawn = (weights @ hits) / (weights @ count)
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    return {"found": hits.sum() / count.sum(), "interval": [low, high], "people": len(hits), "probes": int(count.sum())}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder with images/ of aligned 112×112 crops")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS / "templates.json")
    args = parser.parse_args()
    people = People(Recognizer.load(args.model, threads=1), args.data / "images")
    found: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    found["fpir"] = defaultdict(list)
    for look in (None, *LOOKS):
        for seed in range(args.rounds):
            one_round(people, look, seed, found)
    strangers = {way: float(np.mean(rates)) for way, rates in found.pop("fpir").items()}
    cases = {case: {way: figure(ways[way]) for way in WAYS} for case, ways in found.items()}
    holds = {
        case: bool(ways["by looks"]["found"] >= ways[best]["interval"][0])
        for case, ways in cases.items()
        for best in (max(("one template", "every sample"), key=lambda way: ways[way]["found"]),)
    }
    settings = {"model": Path(args.model).name, "data": args.data.name, "rounds": args.rounds, "fmr": FMR, "fpir": FPIR}
    write(
        {
            **about(threads=1, **settings),
            "cases": cases,
            "strangers matched": strangers,
            "by looks is inside the interval of the better of the two others, or above": holds,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
