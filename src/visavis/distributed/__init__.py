"""Several processes: launch, devices, collectives."""
