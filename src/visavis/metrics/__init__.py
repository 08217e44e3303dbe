"""Figures from arrays alone: error rates, folds, intervals, paired tests, identification, calibration, fusion."""
