"""Which frames of YouTube Faces train, which validate, who is kept for testing (reference-systems rows D1, D3, D17)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from visavis.errors import DataError

Clips = Mapping[str, Sequence[str]]  # clip -> its frames in order, as names person/clip/frame
FrameList = list[tuple[str, int]]  # (name, label)
PairList = list[tuple[str, str, bool]]


@dataclass(frozen=True)
class SplitSettings:
    """Frames a person and pairs a test person; `legacy` does as the reference, see `split`."""

    seed: int = 7
    legacy: bool = False
    train_frames: int = 90
    valid_frames: int = 10
    test_share: float = 0.2
    pairs: int = 5

    def __post_init__(self) -> None:
        if min(self.train_frames, self.valid_frames, self.pairs) < 1 or not 0 <= self.test_share < 1:
            raise DataError("the split wants at least 1 frame and pair of each kind and a test share in [0, 1)")


@dataclass(frozen=True)
class Split:
    """The lists, the people behind the labels, those kept for testing, and those of no use with the reason."""

    train: FrameList
    valid: FrameList
    pairs: PairList
    people: tuple[str, ...]
    test_people: tuple[str, ...]
    unused: dict[str, str] = field(default_factory=dict)
    pairs_within_a_clip: int = 0

    def frames(self) -> list[str]:
        """Every frame the lists name, once, in the order of the lists."""
        named = [name for name, _ in (*self.train, *self.valid)]
        return list(dict.fromkeys([*named, *(name for a, b, _ in self.pairs for name in (a, b))]))


def split(people: Mapping[str, Clips], settings: SplitSettings) -> Split:
    """Cut people, clips and frames into training, validation and test pairs.

    The reference (`legacy`) shuffles a person's frames, whatever clip they are from, and takes 10 for validation and
    the next 90 for training, so that validation frames are neighbors of training frames; its test people are those
    with fewer than 100 frames, most of whom have one clip, so that genuine pairs are neighbors too. The default
    validates on a clip not trained on (for people with one clip: on its end, after a gap), tests on a share of the
    people that have two clips, and compares frames of different clips. Same seed, same lists.

    Raises:
        DataError: nobody has enough frames to train on.
    """
    rng = np.random.default_rng(settings.seed)
    enough = settings.train_frames + settings.valid_frames
    count = {person: sum(map(len, clips.values())) for person, clips in people.items()}
    trained = [person for person in people if count[person] >= enough]
    if not trained:
        most = max(count.values(), default=0)
        raise DataError(f"nobody has the {enough} frames that training wants of each person; the most is {most}")
    test = [person for person in people if count[person] < enough]
    if not settings.legacy:
        several = [person for person in trained if len(people[person]) > 1] or trained
        wanted = min(round(settings.test_share * len(people)), len(trained) - 1, len(several))
        drawn = {several[i] for i in rng.permutation(len(several))[:wanted]}
        trained = [person for person in trained if person not in drawn]
        test = [person for person in people if person in drawn or count[person] < enough]
    unused = {p: "a single frame: no genuine pair, and too few to train on" for p in test if count[p] < 2}
    if not settings.legacy:
        alone = [p for p in test if p not in unused and len(people[p]) < 2]
        if len(alone) < len(test) - len(unused):  # the others have two clips each
            unused |= dict.fromkeys(alone, "too few frames to train on, and one clip: no pair of different clips")
    test = [person for person in test if person not in unused]
    take = _shuffled if settings.legacy else _by_clip
    train: FrameList = []
    valid: FrameList = []
    for label, person in enumerate(trained):
        kept, seen = take(people[person], settings, rng)
        train += [(name, label) for name in kept]
        valid += [(name, label) for name in seen]
    test = [test[i] for i in rng.permutation(len(test))]
    pairs, within = _pairs({p: people[p] for p in test}, settings, rng)
    return Split(train, valid, pairs, tuple(trained), tuple(test), unused, within)


def _shuffled(clips: Clips, settings: SplitSettings, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    frames = [name for clip in clips.values() for name in clip]
    order = [frames[i] for i in rng.permutation(len(frames))]
    return order[settings.valid_frames :][: settings.train_frames], order[: settings.valid_frames]


def _by_clip(clips: Clips, settings: SplitSettings, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Validate on the shortest clip that leaves half of the wanted training frames; else on the end of the longest."""
    total = sum(map(len, clips.values()))
    for clip, frames in sorted(clips.items(), key=lambda item: (len(item[1]), item[0])):
        if len(frames) >= settings.valid_frames and 2 * (total - len(frames)) >= settings.train_frames:
            rest = [name for other, names in clips.items() if other != clip for name in names]
            return _spread(rest, settings.train_frames), _spread(frames, settings.valid_frames)
    longest = max(clips, key=lambda clip: (len(clips[clip]), clip))
    frames = list(clips[longest])
    gap = min(len(frames) // 10, total - settings.train_frames - settings.valid_frames)
    rest = [name for clip, names in clips.items() if clip != longest for name in names]
    tail = max(settings.valid_frames, min(len(frames) // 5, total - gap - settings.train_frames))
    rest += frames[: max(0, len(frames) - tail - gap)]
    return _spread(rest, settings.train_frames), _spread(frames[-tail:], settings.valid_frames)


def _spread(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names at even distances."""
    where = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return [str(names[i]) for i in where]


def _pairs(people: Mapping[str, Clips], settings: SplitSettings, rng: np.random.Generator) -> tuple[PairList, int]:
    """As many genuine as impostor pairs of each person, in tenths that share nobody, so that a list can be cut so."""
    if len(people) < 2:
        return [], 0
    names, rows, within = list(people), [], 0
    for group in np.array_split(np.arange(len(names)), max(1, min(10, len(names) // 2))):
        for i in group:
            clips = [list(frames) for frames in people[names[i]].values()]
            genuine = _genuine(clips, settings, rng)
            within += sum(a.rsplit("/", 1)[0] == b.rsplit("/", 1)[0] for a, b in genuine)
            rows += [(a, b, True) for a, b in genuine]
            others = [names[k] for k in group if k != i]
            rows += [(*pair, False) for pair in _impostor(clips, others, people, len(genuine), rng)]
    return rows, within


def _genuine(clips: list[list[str]], settings: SplitSettings, rng: np.random.Generator) -> list[tuple[str, str]]:
    several = len(clips) > 1 and not settings.legacy
    frames = [(k, name) for k, clip in enumerate(clips) for name in clip]
    drawn: dict[tuple[str, str], None] = {}
    for _ in range(50 * settings.pairs):
        (k, a), (m, b) = (frames[i] for i in rng.choice(len(frames), 2, replace=False))
        if not (several and k == m):
            drawn[min(a, b), max(a, b)] = None
        if len(drawn) == settings.pairs:
            break
    return list(drawn)


def _impostor(
    clips: list[list[str]], others: list[str], people: Mapping[str, Clips], count: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    own = [name for clip in clips for name in clip]
    drawn: dict[tuple[str, str], None] = {}
    for _ in range(50 * count):
        other = [name for clip in people[others[rng.integers(len(others))]].values() for name in clip]
        drawn[own[rng.integers(len(own))], other[rng.integers(len(other))]] = None
        if len(drawn) == count:
            break
    return list(drawn)
