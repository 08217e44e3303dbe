"""Triplet learning: distances, miners, pools and the loss."""

from visavis.losses.triplets.miners import MINERS, Miner, build_miner

__all__ = ["MINERS", "Miner", "build_miner"]
