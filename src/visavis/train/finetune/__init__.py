"""Starting from a trained network: layers, adapters, distillation, whitening, before and after."""

from visavis._moved import former_names

__getattr__ = former_names(__name__, "visavis.train.finetune.finetuning")
