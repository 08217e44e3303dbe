"""Pickles of plain values: every dialect read, nothing else built or run."""

import pickle

import numpy as np
import pytest

from visavis.data.sources.plain_pickle import Array, Blob, loads, materialize
from visavis.errors import DataError


def test_fortran_and_big_endian_arrays():
    for array in (np.arange(6).reshape(2, 3, order="F"), np.arange(6, dtype=">i4"), np.array(3.5), np.zeros((0, 2))):
        data = pickle.dumps(array, 2)
        found = materialize(loads(data), data)
        assert np.array_equal(found, array)
        assert found.shape == array.shape


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",
        b"(S'touch x'\nios\nsystem\n.",  # INST
        b"\x80\x02c__builtin__\nobject\n)\x81.",  # NEWOBJ
        b"\x82\x01.",  # EXT1
        b"Pthing\n.",  # PERSID
        b"}.",  # a dict
        b"cnumpy\nndarray\n(I1000000000000\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\ntR}b.",
    ],
)
def test_other_opcodes_are_refused(data):
    with pytest.raises(DataError, match="not a plain pickle at byte"):
        loads(data)


def test_object_arrays_are_refused():
    with pytest.raises(DataError, match="not a plain pickle"):
        loads(pickle.dumps(np.array([object], dtype=object), 2))
    with pytest.raises(DataError, match=r"type '\|?O8'|array of objects"):
        loads(pickle.dumps(np.array(["a", 1], dtype=object), 2))


def test_blobs_stay_in_the_file():
    data = pickle.dumps([b"x" * 1000])
    value = loads(data)
    assert isinstance(value[0], Blob)
    assert data[value[0].offset :].startswith(b"x" * 1000)
    assert isinstance(loads(pickle.dumps(np.zeros(3))), Array)
