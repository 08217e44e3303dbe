"""PROTOCOLS: name -> loader. A new protocol is one file and one line here."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from visavis.errors import ProtocolError, unknown_name
from visavis.evaluate.protocols.classified import load_people
from visavis.evaluate.protocols.folder import load_folder
from visavis.evaluate.protocols.groups import load_csv, load_rfw
from visavis.evaluate.protocols.identification import load_identification, load_megaface, load_tinyface
from visavis.evaluate.protocols.ijb import load_ijb, load_ijb_search
from visavis.evaluate.protocols.loading import LoadedProtocol, ProtocolArgs, ProtocolLoader
from visavis.evaluate.protocols.pair_sets import load_cfp, load_pairs, load_youtube_faces

PROTOCOLS: dict[str, ProtocolLoader] = {
    "pairs": load_pairs,
    "folder": load_folder,
    "lfw": partial(load_pairs, name="lfw"),
    "cfp-ff": partial(load_cfp, name="cfp-ff"),
    "cfp-fp": partial(load_cfp, name="cfp-fp"),
    "agedb-30": partial(load_pairs, name="agedb-30"),
    "calfw": partial(load_pairs, name="calfw"),
    "cplfw": partial(load_pairs, name="cplfw"),
    "xqlfw": partial(load_pairs, name="xqlfw"),
    "youtube-faces": load_youtube_faces,
    "closed-set": load_people,
    "ijb": load_ijb,
    "ijb-search": load_ijb_search,
    "rfw": load_rfw,
    "groups": load_csv,
    "identification": load_identification,
    "tinyface": load_tinyface,
    "megaface": load_megaface,
}


def load_protocol(
    name: str, data: str | os.PathLike[str], *, pairs: str | os.PathLike[str] | None = None, **options: Any
) -> LoadedProtocol:
    """Open a protocol's data.

    Raises:
        ProtocolError: unknown name, or the data lacks what the protocol needs.
        DataError: the data cannot be read.
    """
    if name not in PROTOCOLS:
        raise ProtocolError(unknown_name("protocol", name, PROTOCOLS))
    data = Path(data)
    if not data.exists():
        raise ProtocolError(f"{data}: expected the data of protocol {name}, there is no such file or folder")
    return PROTOCOLS[name](ProtocolArgs(data, Path(pairs) if pairs is not None else None, options))
