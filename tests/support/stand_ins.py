"""What the commands of the documentation are run on: generated people in place of the files they name, all small."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from visavis.cli import main
from visavis.synthetic.scenes import scene
from visavis.vision import images

Make = Callable[[Path], None]  # writes what a name stands for


def call(*words: object) -> None:
    """A verb that must succeed."""
    assert main([str(word) for word in words]) == 0, f"visavis {' '.join(map(str, words))}"


class StandIns:
    """Made once, copied to wherever a page's commands look for them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, Path] = {}

    def _once(self, name: str, make: Make) -> Path:
        if name not in self.made:
            make(self.root / name)
            self.made[name] = self.root / name
        return self.made[name]

    def faces(self, path: Path) -> None:
        """20 people of 3 aligned crops, with pairs.txt."""

        def make(out: Path) -> None:
            call("synth", out, "--identities", 20, "--images-per-identity", 3, "--pairs", 40, "--workers", 1)

        shutil.copytree(self._once("faces", make), path)

    def many_faces(self, path: Path) -> None:
        """20 people of 3 aligned crops, a folder a person."""
        self.faces(path.with_name(f"{path.name} and lists"))
        shutil.copytree(path.with_name(f"{path.name} and lists") / "images", path)

    def others(self, path: Path) -> None:
        """8 other people of 4 aligned crops."""

        def make(out: Path) -> None:
            call("synth", out, "--identities", 8, "--images-per-identity", 4, "--seed", 5, "--workers", 1)
            for folder in sorted((out / "images").iterdir()):
                folder.rename(folder.with_name("other_" + folder.name))

        shutil.copytree(self._once("others", make), path)

    def photos(self, path: Path) -> None:
        """8 people of 3 photographs with one face each."""

        def make(out: Path) -> None:
            for person in range(8):
                for k in range(3):
                    shown = scene(5, 100 * person + k, range(person, person + 1), difficulty=0.4)
                    image = out / f"person {person}" / f"{k}.jpg"
                    image.parent.mkdir(parents=True, exist_ok=True)
                    images.write(image, shown.image, quality=95)

        shutil.copytree(self._once("photos", make), path)

    def photo(self, person: int, number: int) -> Make:
        """One of these photographs."""

        def make(path: Path) -> None:
            if "photos" not in self.made:
                self.photos(self.root / "unused")
            shutil.copyfile(self.made["photos"] / f"person {person}" / f"{number}.jpg", path)

        return make

    def model(self, path: Path) -> None:
        """A model folder, hardly trained, exported and calibrated."""

        def make(out: Path) -> None:
            run = out.with_name("run")
            self.run(run)
            call("export", run / "best", "--format", "onnx")
            shutil.copytree(run / "best", out)
            self.faces(out.with_name("to calibrate on"))
            call("calibrate", out, out.with_name("to calibrate on"), "--aligned", "--fmr", "0.1")

        shutil.copytree(self._once("model", make), path)

    def run(self, path: Path) -> None:
        """A run folder of two steps."""
        data = path.with_name(f"{path.name} was trained on")
        self.faces(data)
        call("train", "arcface-small", "--data", data, "--out", path, *SMALL_RUN, "--loop.steps=2")

    def checkpoint(self, path: Path) -> None:
        """Weights of a MobileFaceNet as MobileFaceNet_Pytorch saves them, untrained."""
        import torch

        from visavis.backbones import build_backbone

        state = build_backbone("mobilefacenet", size=(112, 96), dim=128).state_dict()
        torch.save({"net_state_dict": state}, path)

    def bin(self, path: Path) -> None:
        """A .bin of pairs."""
        self.faces(path.with_name("faces of the bin"))
        call("convert", path.with_name("faces of the bin"), path)

    def clips(self, path: Path) -> None:
        """Clips in YouTube Faces' layout."""
        call("synth", "--youtube-faces", path, "--identities", 8, "--images-per-identity", 26, "--workers", 1)

    def gallery(self, path: Path) -> None:
        """A gallery that holds Ada and a model."""
        self.model(path.with_name("MODEL of the gallery"))
        self.photo(0, 0)(path.with_name("ada.jpg"))
        call(
            "enroll",
            path,
            path.with_name("ada.jpg"),
            "--name",
            "Ada",
            "--model",
            path.with_name("MODEL of the gallery"),
        )

    def evaluation(self, *extra: object) -> Make:
        """The JSON of an evaluation and its scores."""

        def make(path: Path) -> None:
            model, data = path.with_name("MODEL judged"), path.with_name("faces judged")
            if not model.exists():
                self.model(model)
                self.faces(data)
            call("evaluate", model, "--data", data, "--json", path, "--no-baseline", "--bootstrap", 0, *extra)

        return make

    def dialect(self, path: Path) -> None:
        """Crops named `name_1.png`."""
        self.faces(path.with_name("plain"))
        for person in sorted((path.with_name("plain") / "images").iterdir()):
            (path / person.name).mkdir(parents=True)
            for number, image in enumerate(sorted(person.iterdir()), 1):
                images.write(path / person.name / f"{person.name}_{number}.png", images.read(image))

    def dialect_list(self, path: Path) -> None:
        """Its pairs, by comma and without a header."""
        names = sorted(folder.name for folder in (path.parent / "SRC").iterdir())
        lines = [f"{a},1,2\n{a},1,{b},1\n" for a, b in zip(names, [*names[1:], names[0]], strict=True)]
        path.write_text("".join(lines))

    def recipe(self, path: Path) -> None:
        """A recipe of one's own."""
        call_text = "name: mine\ndata: {synthetic: {identities: 8}}\npreprocess: {size: [48, 48]}\nloop: {steps: 2}\n"
        path.write_text(call_text)


SMALL_RUN = (
    "--loop.batch_size=8",
    "--loop.device=cpu",
    "--data.workers=0",
    "--loop.wccn_ridge=0",
)


def small(words: list[str]) -> list[str]:
    """The same command on less: fewer people, pictures, steps and draws."""
    verb = words[0]
    if verb == "synth":
        most = {"--identities": 20, "--images-per-identity": 2, "--pairs": 40}
        if "--youtube-faces" in words:
            most = {"--identities": 9, "--images-per-identity": 102}  # a clip; 100 frames are wanted of a person
        return [*_at_most(words, most), "--workers", "1"]
    if verb == "quickstart":
        return [*words, "--steps", "2"]
    if verb == "train":
        return _small_training(words)
    if verb == "adapt":
        return [*words, "--anyway"]  # generated faces have little in common that a model would mistake
    if verb == "import":
        return [*words, "--as-told"]  # its trial says nothing of weights that were never trained
    if verb == "bench":
        return [*words, "--seconds", "0.05", "--batch", "1"]
    if verb == "prepare":
        return [*words, "--workers", "1"]
    if verb == "evaluate":
        words = ["0.1" if word in ("1e-2", "1e-3") else word for word in words]  # what few pairs can support
        return [*_at_most(words, {"--joint-dim": 4}), "--bootstrap", "20"]
    if verb == "export" and "--precision" in words:
        return [*words, "--max-drop", "100"]  # a model of two steps is judged on 24 pairs
    return words


def _small_training(words: list[str]) -> list[str]:
    if "--dry-run" in words:
        return [*words, "--loop.batch_size=8"]
    if "--resume" in words:
        return _at_most(words, {"--loop.steps": 4})
    words = [*words, *SMALL_RUN, "--loop.steps=2"]
    if "--data" not in words:
        words += ["--data.synthetic.identities=8", "--data.synthetic.images_per_identity=5"]
        words += ["--evaluate.synthetic_identities=8", "--evaluate.synthetic_images=4"]
        words += ["--evaluate.synthetic_pairs=40", "--evaluate.synthetic_folds=2"]
    return words


def _at_most(words: list[str], most: dict[str, int]) -> list[str]:
    words = list(words)
    for flag, limit in most.items():
        if flag in words:
            place = words.index(flag) + 1
            words[place] = str(min(int(words[place]), limit))
    return words
