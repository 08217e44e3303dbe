"""Losses: heads (formulas), Partial FC (the machinery over classes), triplets."""
