"""Judging a run in the middle of it: held-out pairs, a list of the people trained on, and the best model so far."""

from __future__ import annotations

import logging
from pathlib import Path

from visavis.distributed import launch as distributed
from visavis.distributed.launch import SharedEmbedder
from visavis.errors import ProtocolError
from visavis.metrics.verification import VerificationMetrics
from visavis.models.torch import TorchEmbedder
from visavis.train.build import Training
from visavis.train.run_logger import RunLogger
from visavis.train.save import find_fault, kept_classifier, say_good, write_model
from visavis.train.state import TrainState

log = logging.getLogger(__name__)


def validate(training: Training, state: TrainState, run: Path, book: RunLogger) -> VerificationMetrics | None:
    """Verify the held-out pairs and keep the model in `best/` if none was better; None without pairs.

    Where the recipe has a list of the people trained on, better is a higher top-1 accuracy of the head over it.
    A state that is not finite is neither judged nor kept. All ranks must call it: each embeds its share.

    Raises:
        ProtocolError: the run is over, and the model gives embeddings that are not finite.
    """
    if why := find_fault(training, state):
        log.warning("not judged at step %d: %s; %s", state.step, why, say_good(state, run))
        return None
    world = training.world
    with state.averaged():
        distributed.broadcast_parameters(state.network, world)
        plain = training.model(state)
        embedder = SharedEmbedder(TorchEmbedder(plain, training.spec, device=world.device, batch_size=128), world)
        try:
            verification = training.validation_set(embedder) if training.validation_set else None
            head = state.objective.head
            top1 = training.closed_set(embedder, head) if training.closed_set and head is not None else None
        except ProtocolError as error:
            training.tuning.train()
            if state.step == training.total:
                raise
            log.warning("not judged at step %d: %s", state.step, error)
            return None
        measured = top1 if top1 is not None else verification.accuracy if verification else None
        is_better = measured is None or measured > state.best
        if measured is not None and is_better:
            state.best = measured
        classifier = kept_classifier(training, state) if is_better else None
        if world.is_first and is_better:
            write_model(training, state, run / "best", plain, classifier)
    training.tuning.train()
    figures = {} if top1 is None else {"top1": top1}
    if verification:
        figures |= {"accuracy": verification.accuracy, "auc": verification.auc, "eer": verification.eer}
    if figures:
        record = {"step": state.step, "eval": figures, **({"warning": training.warning} if training.warning else {})}
        book.write(record)
        training.observer.logged(record)
    said = training.warning and f" ({training.warning})"
    if verification:
        log.info("step %d: accuracy %.4f, EER %.4f on %d pairs%s", state.step, verification.accuracy, verification.eer,
                 len(verification.genuine), said)  # fmt: skip
    if top1 is not None and training.closed_set:
        log.info("step %d: top-1 %.4f on %d pictures of the people trained on%s", state.step, top1,
                 len(training.closed_set.labels), said)  # fmt: skip
    return verification
