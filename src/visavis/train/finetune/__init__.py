"""Starting from a trained network: layers, adapters, distillation, whitening, before and after."""
