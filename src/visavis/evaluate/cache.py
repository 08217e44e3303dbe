"""Embeddings kept by what they are of: the digest of the model and the digest of the picture's pixels."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visavis.files import write_atomically
from visavis.types import ByteArray

_DIGEST = 20  # bytes of BLAKE2b: no two pictures of a data set share them


class EmbeddingCache:
    """One file per model, `<model digest>.npz`: keys uint8 (N, 20), vectors float32 (N, D) and norms float32 (N, 2).

    `model` must name everything that shapes an embedding: weights, preprocessing and flip. A damaged file, or one of
    another length of embedding, is started anew. Norms are NaN where nobody asked for them, or in files without them.
    """

    def __init__(self, folder: str | os.PathLike[str], *, model: str, dim: int) -> None:
        self.path = Path(folder) / f"{hashlib.blake2b(model.encode(), digest_size=_DIGEST).hexdigest()}.npz"
        self.dim = dim
        self._vectors: dict[bytes, npt.NDArray[np.float32]] = {}
        self._norms: dict[bytes, npt.NDArray[np.float32]] = {}
        self._fresh = 0
        self._load()

    def __len__(self) -> int:
        return len(self._vectors)

    @staticmethod
    def key(crop: ByteArray) -> bytes:
        """Digest of a picture's shape and pixels; (H, W, 3)."""
        digest = hashlib.blake2b(repr(crop.shape).encode(), digest_size=_DIGEST)
        digest.update(np.ascontiguousarray(crop).data)
        return digest.digest()

    def get(self, key: bytes) -> npt.NDArray[np.float32] | None:
        """The embedding (D,) of a picture, if known."""
        return self._vectors.get(key)

    def norms(self, key: bytes) -> npt.NDArray[np.float32] | None:
        """Length of a picture's raw feature and mean length of those of its views (2,), if they were kept."""
        return self._norms.get(key)

    def put(self, key: bytes, vector: npt.NDArray[np.float32], *, norms: npt.NDArray[np.float32] | None = None) -> None:
        """Keep an embedding, perhaps with its norms (2,); `flush` writes."""
        self._vectors[key] = np.array(vector, np.float32)
        if norms is not None:
            self._norms[key] = np.array(norms, np.float32)
        self._fresh += 1

    def flush(self) -> None:
        """Write atomically, if anything is new."""
        if not self._fresh:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        keys = np.frombuffer(b"".join(self._vectors), np.uint8).reshape(-1, _DIGEST)
        unknown = np.full(2, np.nan, np.float32)
        norms = np.stack([self._norms.get(key, unknown) for key in self._vectors])
        np.savez(buffer, keys=keys, vectors=np.stack(list(self._vectors.values())), norms=norms)
        write_atomically(self.path, buffer.getvalue())
        self._fresh = 0

    def _load(self) -> None:
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                keys, vectors = stored["keys"], stored["vectors"]
                norms = stored["norms"] if "norms" in stored.files else np.empty((0, 2), np.float32)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return
        if keys.shape == (len(vectors), _DIGEST) and vectors.shape[1:] == (self.dim,):
            raw = keys.tobytes()
            self._vectors = {raw[i * _DIGEST : (i + 1) * _DIGEST]: v for i, v in enumerate(vectors)}
            if norms.shape == (len(vectors), 2):
                known = zip(self._vectors, norms, strict=True)
                self._norms = {key: lengths for key, lengths in known if not np.isnan(lengths[0])}
