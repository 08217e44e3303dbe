"""Triplet learning: distances, miners, pools and the loss: `TripletLoss(margin=0.2, miner=SemiHard())`."""

from visavis.losses.triplets.embedding_miners import (
    BatchAll,
    BatchHardest,
    BatchMinMax,
    BatchMinMin,
    BatchRandom,
    DistanceWeighted,
    EmbeddingMiner,
    SemiHard,
    TripletLoss,
)
from visavis.losses.triplets.miners import MINERS, Miner, build_miner

__all__ = [
    "MINERS",
    "BatchAll",
    "BatchHardest",
    "BatchMinMax",
    "BatchMinMin",
    "BatchRandom",
    "DistanceWeighted",
    "EmbeddingMiner",
    "Miner",
    "SemiHard",
    "TripletLoss",
    "build_miner",
]
