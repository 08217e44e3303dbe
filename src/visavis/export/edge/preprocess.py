"""Pictures -> raw tensors: tensors/000000.bin ... in the model's own layout, and tensors/list.txt with their names.

    python preprocess.py PICTURES OUT [--pairs pairs.txt | --labels valid.txt]

PICTURES holds aligned crops, one folder per identity (or images/ with one). With --pairs or --labels (`path TAB label`
lines) only what the list names is written. Needs numpy, and OpenCV or Pillow to decode.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def decode(path):
    """uint8 (H, W, 3) RGB."""
    try:
        import cv2
    except ImportError:
        from PIL import Image

        return np.asarray(Image.open(path).convert("RGB"))
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit(f"{path}: not a picture")
    return image[..., ::-1]


def fit(image, model):
    """The crop at the model's size: as it is, or the template's columns of a square ArcFace crop, shrunk."""
    height, width = model["preprocess"]["size"]
    if image.shape[:2] == (height, width):
        return image
    frame = model["frame"]["size"]
    if image.shape[0] == image.shape[1] and model["frame"]["column"] is not None:
        columns = round(image.shape[1] * frame[1] / 112)
        left = round(image.shape[1] * model["frame"]["column"] / 112)
        image = np.ascontiguousarray(image[:, left : left + columns])
    elif image.shape[0] * frame[1] != image.shape[1] * frame[0]:
        raise SystemExit(f"the model wants {height}x{width} crops, got {image.shape[0]}x{image.shape[1]}")
    if image.shape[:2] == (height, width):
        return image
    try:
        import cv2
    except ImportError:
        raise SystemExit("crops of another size are scaled by OpenCV: pip install opencv-python-headless") from None
    shrinks = height < image.shape[0] and width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def layout(image, model):
    """One picture as the graph takes it."""
    spec = model["preprocess"]
    if model["input"] == "uint8 pixels":
        return np.ascontiguousarray(image)
    if model["input"] == "float pixels":
        return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    ordered = image[..., ::-1] if spec["channels"] == "BGR" else image
    x = (ordered.astype(np.float32) - np.float32(spec["mean"])) / np.float32(spec["std"])
    return np.ascontiguousarray(x.transpose(2, 0, 1))


def names_of_pairs(path):
    """The pictures a pairs.txt names, each once, in order."""
    names = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        field = line.split("\t") if "\t" in line else line.split()
        if len(field) == 3 and field[2] in "01" and "." in field[1]:
            names |= {field[0]: None, field[1]: None}
        elif len(field) == 3:
            names |= {f"{field[0]}/{field[0]}_{int(n):04d}.jpg": None for n in field[1:]}
        elif len(field) == 4:
            names |= {f"{field[i]}/{field[i]}_{int(field[i + 1]):04d}.jpg": None for i in (0, 2)}
    return list(names)


def main():
    """Write the tensors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args()
    model = json.loads((HERE / "model.json").read_text(encoding="utf-8"))
    root = args.images / "images" if (args.images / "images").is_dir() else args.images
    if args.labels:
        lines = args.labels.read_text(encoding="utf-8").splitlines()
        names = [line.rsplit("\t", 1)[0] for line in lines if line.strip()]
    elif args.pairs:
        names = names_of_pairs(args.pairs)
    else:
        names = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*")) if p.suffix.lower() in EXTENSIONS]
    if not names:
        raise SystemExit(f"{root}: no pictures")
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / "list.txt", "w", encoding="utf-8") as listed:
        for i, name in enumerate(names):
            layout(fit(decode(root / name), model), model).tofile(args.out / f"{i:06d}.bin")
            listed.write(f"{i:06d}.bin\t{name}\n")
    sys.stdout.write(f"{len(names)} tensors in {args.out}\n")


if __name__ == "__main__":
    main()
