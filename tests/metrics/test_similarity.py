"""Rows of length 1: one rule for every embedder, with the field's smallest length."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import visavis
from visavis.metrics.similarity import unit_rows

SOURCE = Path(visavis.__file__).parent


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_rows_have_length_1_or_stay_zero(dtype):
    rows = np.array([[3, 4], [0, 0], [-5, 12]], dtype)
    unit = unit_rows(rows)
    assert unit.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert np.allclose(unit, [[0.6, 0.8], [0, 0], [-5 / 13, 12 / 13]])
    assert np.allclose(unit_rows(rows[0]), [0.6, 0.8])
    assert np.array_equal(rows, np.array([[3, 4], [0, 0], [-5, 12]], dtype))


def test_it_is_what_torch_normalizes_to():
    rows = np.random.default_rng(0).normal(size=(50, 128)) * np.logspace(-14, 3, 50)[:, None]
    wanted = torch.nn.functional.normalize(torch.from_numpy(rows), dim=1).numpy()
    assert np.allclose(unit_rows(rows), wanted, rtol=1e-12, atol=0)


def test_what_is_not_finite_stays_so():
    assert np.isnan(unit_rows(np.array([[np.nan, 1.0]]))).all()


def test_nobody_divides_by_a_smallest_length_of_his_own():
    """numpy rows are scaled here; duplicates.py scales picture features, whose noise needs a larger smallest length."""
    found = []
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        if name in ("metrics/similarity.py", "data/validate/duplicates.py") or "edge" in name:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            divides = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
            if divides:
                by = ast.unparse(node.right if isinstance(node, ast.BinOp) else node.value)
                if "linalg.norm" in by and "maximum" in by:
                    found.append(f"{name}:{node.lineno}")
    assert found == []
