"""Everything of size batch x classes: margin softmax, chunks of classes, sampling, sharding."""
