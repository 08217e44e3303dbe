"""Recognizer: picture -> detect -> align -> embed -> compare, without torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from visavis._moved import former_arguments
from visavis.deploy.detectors import named_detector
from visavis.deploy.face import Face, Verification
from visavis.deploy.find_faces import find_faces
from visavis.deploy.gallery.model_identity import ModelIdentity
from visavis.deploy.gallery.records import Identification
from visavis.deploy.no_face import WHAT_HELPS
from visavis.deploy.operating_point import HOW_TO, DecisionThreshold, operating_point
from visavis.deploy.quality import assess
from visavis.errors import DataError, unknown_name
from visavis.models.card import CARD, ModelCard, read_card
from visavis.models.caution import caution
from visavis.models.find import find_model, lasting_name
from visavis.models.load import load_embedder
from visavis.types import ByteArray, Detector, Embedder
from visavis.vision.alignment import template_points
from visavis.vision.channel_order import ORDERS, ChannelOrder, looks_bgr
from visavis.vision.detection.turns import Turn
from visavis.vision.image_inputs import load_image
from visavis.vision.images import LARGE, ReducedImage
from visavis.vision.preprocessing import PreprocessSpec, fit_crop

if TYPE_CHECKING:
    from visavis.deploy.gallery.base import GalleryBase

log = logging.getLogger(__name__)
MAX_FACES = 1000


@final
class Recognizer:
    """Everything between a picture and an answer.

    A picture is a path, a data URL, encoded bytes, an open file, a PIL image or an RGB array (OpenCV's BGR must be
    turned first); see `visavis.vision.image_inputs.load_image`.
    What `load` made pickles by its path, so that worker processes may be given it.
    The names `get`, `represent`, `verify` and `find` mean what InsightFace's and DeepFace's users expect.

    Args:
        embedder: turns crops into embeddings.
        spec: the crops it wants.
        card: thresholds, license, identity; None for an embedder without.
        detector: finds faces; MTCNN, loaded when first needed, when None.
        turn: whether pictures are looked at turned: `auto`, `never` or `always`; see `detect_turned`.
        arrays: channels of pictures given as arrays: `RGB`, `BGR` (OpenCV's), or `auto`, which looks at both where the
            face is bluer than red or none is found. With `RGB` such a face gets one warning.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        spec: PreprocessSpec,
        card: ModelCard | None = None,
        detector: Detector | None = None,
        turn: Turn = "auto",
        arrays: ChannelOrder = "RGB",
    ) -> None:
        if arrays not in ORDERS:
            raise DataError(unknown_name("channel order", arrays, ORDERS))
        self.embedder = embedder
        self.spec = spec
        self.card = card
        self._detector = detector
        self.turn: Turn = turn
        self.arrays: ChannelOrder = arrays
        self._hinted = False
        self._loaded_by: tuple[str, dict[str, Any]] | None = None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        detector: Detector | str | None = None,
        threads: int | None = None,
        turn: Turn = "auto",
        min_face: int | None = None,
        arrays: ChannelOrder = "RGB",
    ) -> Recognizer:
        """Load a model folder, a run folder or an exported file.

        Args:
            model: what the command line calls MODEL; the packaged default when None.
            detector: a detector, or its name (`mtcnn`, `yunet=FILE`, `scrfd=FILE`); MTCNN when None.
            threads: of the runtime.
            turn: see the class.
            min_face: side in pixels of the smallest face looked for; more for a large picture when None (see
                `visavis.vision.detection.pyramid.smallest_face`).
            arrays: see the class.

        Raises:
            ModelFormatError: see `load_embedder`.
        """
        found = find_model(model)
        embedder = load_embedder(found, threads=threads)
        # The folder's card may have been calibrated after the file in it was exported with an older copy.
        card = read_card(found) if found.is_dir() else _with_thresholds(getattr(embedder, "card", None), found.parent)
        if isinstance(detector, str) or (detector is None and min_face is not None):
            given = named_detector(detector, min_face=min_face)
        else:
            given = detector
        made = cls(embedder, spec=card.preprocess, card=card, detector=given, turn=turn, arrays=arrays)
        options = {"detector": detector, "threads": threads, "turn": turn, "min_face": min_face, "arrays": arrays}
        made._loaded_by = lasting_name(model), options
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as the path and options it was loaded with: a process that is given it loads the model itself.

        Raises:
            TypeError: it was put together from parts, whose sessions cannot travel.
        """
        if self._loaded_by is None:
            raise TypeError(
                "a Recognizer made of parts cannot be pickled; pass the model's path and call Recognizer.load(PATH) in "
                "each process"
            )
        path, options = self._loaded_by
        return _load, (path, options)

    @property
    def detector(self) -> Detector:
        """The detector, loaded on first use."""
        if self._detector is None:
            self._detector = named_detector(None)
        return self._detector

    @property
    def large(self) -> int | None:
        """Pixels above which a JPEG is decoded reduced; None where a smallest face was asked for, in whole pixels."""
        return None if getattr(self._detector, "asked", False) else LARGE

    @property
    def identity(self) -> ModelIdentity:
        """Which embedding space this is, for binding a gallery."""
        if self.card is None:
            raise DataError("a gallery is bound to a model card, and this recognizer was made without one")
        same = ModelIdentity.of_card(self.card.with_changes(preprocess=self.spec))
        return replace(same, dim=self.embedder.dim)

    @former_arguments(picture="image")
    def get(
        self, image: Any, *, max_faces: int = MAX_FACES, aligned: bool = False, name: str = "picture"
    ) -> list[Face]:
        """All faces of a picture with embedding and quality: first the one it is about, then by size.

        Args:
            image: see the class.
            max_faces: at most so many.
            aligned: the picture is an aligned crop already; it is not searched.
            name: what error messages call it; a path names itself.

        Returns:
            [] when no face is found.

        Raises:
            DataError: not a picture, damaged or too large.
        """
        return self.get_many([image], max_faces=max_faces, aligned=aligned, names=[name])[0]

    @former_arguments(pictures="images")
    def get_many(
        self,
        images: Sequence[Any],
        *,
        max_faces: int = MAX_FACES,
        aligned: bool = False,
        names: Sequence[str] | None = None,
    ) -> list[list[Face]]:
        """`get` for several pictures, their crops embedded together."""
        found: list[list[Face]] = []
        for i, image in enumerate(images):
            name = name_of(image, i, names)
            decoded = load_image(image, name=name, large=self.large)
            found.append(self._found(image, decoded, name, max_faces=max_faces, aligned=aligned))
        crops = [face.crop for faces in found for face in faces]
        if not crops:
            return found
        embeddings = iter(self.embedder.embed(np.stack(crops)))
        return [[face.with_embedding(next(embeddings)) for face in faces] for faces in found]

    def detect(self, image: Any, *, max_faces: int = MAX_FACES, name: str = "picture") -> list[Face]:
        """`get` without the embeddings."""
        decoded = load_image(image, name=name, large=self.large)
        return self._found(image, decoded, name, max_faces=max_faces, aligned=False)

    def _found(self, image: Any, decoded: ReducedImage, name: str, *, max_faces: int, aligned: bool) -> list[Face]:
        """The faces of a picture, whose channels may have to be turned if it came as an array."""

        def look(seen: ReducedImage) -> list[Face]:
            return [self._crop(seen.pixels, name)] if aligned else self._faces(seen, max_faces)

        if not isinstance(image, np.ndarray) or image.ndim != 3:
            return look(decoded)

        def look_turned() -> list[Face]:
            return look(replace(decoded, pixels=np.ascontiguousarray(decoded.pixels[..., ::-1])))

        if self.arrays == "BGR":
            return look_turned()
        faces = look(decoded)
        bluer = bool(faces) and looks_bgr(faces[0].crop)
        if self.arrays == "auto" and (bluer or not faces):
            return look_turned() or faces
        if bluer and not self._hinted:
            self._hinted = True
            log.warning(
                "%s: the face is bluer than red, as where an array's channels are in OpenCV's order (BGR); turn them: "
                "image[..., ::-1], or Recognizer.load(MODEL, arrays='BGR')",
                name,
            )
        return faces

    def _faces(self, image: ReducedImage, max_faces: int) -> list[Face]:
        return find_faces(image, self.detector, self.spec, turn=self.turn, max_faces=max_faces)

    def _crop(self, image: ByteArray, name: str) -> Face:
        try:
            crop = fit_crop(image, self.spec)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        height, width = crop.shape[:2]
        points = template_points(self.spec.template, (height, width)).astype(np.float32)
        box = np.array([0, 0, width - 1, height - 1], np.float32)
        return Face(box=box, score=1.0, landmarks=points, crop=crop, quality=assess(image, None), faces_in_image=1)

    @former_arguments(picture="image")
    def best(self, image: Any, *, aligned: bool = False, name: str = "picture") -> Face:
        """The face a picture is about: large and central (`visavis.vision.detection.detectors.choose`).

        Raises:
            DataError: no face was found.
        """
        faces = self.get(image, max_faces=1, aligned=aligned, name=name)
        if not faces:
            raise DataError(f"{name_of(image, 0, [name])}: no face found; {WHAT_HELPS}")
        return faces[0]

    def crop(self, image: Any, *, name: str = "picture") -> ByteArray:
        """The aligned crop (H, W, 3) of the face a picture is about, as `embedder` wants it; nothing is embedded.

        Raises:
            DataError: not a picture, or no face was found.
        """
        decoded = load_image(image, name=name, large=self.large)
        faces = self._faces(decoded, 1)
        if not faces:
            raise DataError("no face found")
        return faces[0].crop

    @former_arguments(pictures="images")
    def embed(self, images: Sequence[Any], *, aligned: bool = False) -> npt.NDArray[np.float32]:
        """The embedding of the face each picture is about, (N, D), unit rows."""
        rows = [self.best(p, aligned=aligned, name=f"picture {i + 1}").embedding for i, p in enumerate(images)]
        return np.stack(rows) if rows else np.empty((0, self.embedder.dim), np.float32)

    @former_arguments(picture="image")
    def represent(self, image: Any, *, aligned: bool = False) -> list[dict[str, Any]]:
        """DeepFace's form of `get`: dictionaries with `embedding`, `facial_area` and `face_confidence`."""
        answers = []
        for face in self.get(image, aligned=aligned):
            x1, y1, x2, y2 = (round(float(v)) for v in face.box)
            area = {"x": x1, "y": y1, "w": x2 - x1, "h": y2 - y1}
            answers.append({"embedding": face.embedding.tolist(), "facial_area": area, "face_confidence": face.score})
        return answers

    def point(self, *, fmr: float | None = None, threshold: float | None = None) -> DecisionThreshold | None:
        """The threshold decisions are taken at; None when the model is not calibrated."""
        return operating_point(self.card, fmr=fmr, threshold=threshold)

    def verify(
        self,
        reference: Any,
        probe: Any,
        *,
        fmr: float | None = None,
        threshold: float | None = None,
        aligned: bool = False,
    ) -> Verification:
        """Whether two pictures show one person: similarity = e(reference)·e(probe), a match when ≥ the threshold.

        Args:
            reference: a picture; the face it is about counts.
            probe: the other.
            fmr: the false match rate to decide at; the card must be calibrated there. Without, see `operating_point`.
            threshold: decide at this similarity instead.
            aligned: both are aligned crops.

        Returns:
            `match` is None, with a note how to calibrate, when the model has no calibrated threshold.

        Raises:
            DataError: a picture is unreadable or shows no face, or the card is calibrated at other rates.
        """
        point = self.point(fmr=fmr, threshold=threshold)
        a = self.best(reference, aligned=aligned, name="reference")
        b = self.best(probe, aligned=aligned, name="probe")
        return self.compare(a, b, point)

    def compare(self, reference: Face, probe: Face, point: DecisionThreshold | None) -> Verification:
        """`verify` for two faces already found."""
        similarity = float(np.clip(reference.embedding @ probe.embedding, -1, 1))
        notes = []
        if point is None:
            notes.append(f"no decision: this model has no calibrated threshold; {HOW_TO}, or give a threshold")
        elif point.measured_on is not None:
            notes.append(f"the threshold was measured on {point.measured_on}")
        if said := caution(self.card):
            notes.append(said)
        return Verification(
            similarity=similarity,
            match=None if point is None else similarity >= point.threshold,
            threshold=None if point is None else point.threshold,
            fmr=None if point is None else point.fmr,
            probability=None if point is None else point.probability(similarity),
            reference=reference,
            probe=probe,
            notes=tuple(notes),
        )

    @former_arguments(picture="image")
    def find(
        self,
        image: Any,
        gallery: GalleryBase,
        *,
        fmr: float | None = None,
        threshold: float | None = None,
        top: int = 5,
        aligned: bool = False,
    ) -> list[tuple[Face, Identification]]:
        """Who the people on a picture are, in the order of `get`, nobody twice; [] when there is no face.

        Raises:
            DataError: `gallery` is no open gallery (DeepFace's takes a folder here).
        """
        if not hasattr(gallery, "identify"):
            raise DataError(
                f"find searches an open gallery, got {type(gallery).__name__}; a folder is made one by: visavis enroll "
                "people.db FOLDER --model MODEL, and opened by: Gallery('people.db')"
            )
        faces = self.get(image, aligned=aligned)
        if not faces:
            return []
        point = self.point(fmr=fmr, threshold=threshold)
        answers = gallery.identify(
            np.stack([face.embedding for face in faces]),
            threshold=None if point is None else point.threshold,
            fmr=None if point is None else point.fmr,
            fmr_interval=None if point is None else point.fmr_interval,
            top=top,
            one_image=True,
        )
        return list(zip(faces, answers, strict=True))


def _with_thresholds(card: ModelCard | None, folder: Path) -> ModelCard:
    """An exported file's card; thresholds calibrated since it was written come from the folder of the same weights."""
    if card is not None and (card.thresholds or not (folder / CARD).is_file()):
        return card
    beside = read_card(folder)
    if card is None or beside.weights_digest == card.weights_digest:
        return beside if card is None else card.with_changes(thresholds=beside.thresholds)
    return card


def card_of(model: str | os.PathLike[str]) -> ModelCard:
    """The card of what the command line calls MODEL."""
    found = find_model(model)
    if found.is_dir():
        return read_card(found)
    return _with_thresholds(getattr(load_embedder(found), "card", None), found.parent)


def name_of(image: Any, i: int, names: Sequence[str] | None) -> str:
    """What an error message calls a picture."""
    if isinstance(image, str | os.PathLike) and str(image)[:5].lower() != "data:":
        return os.fspath(image)
    return names[i] if names else f"picture {i + 1}"


def _load(path: str, options: dict[str, Any]) -> Recognizer:
    return Recognizer.load(path, **options)
