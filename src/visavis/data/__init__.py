"""Pictures and labels in every format of the field: sources, pair lists, preparing, validating, augmenting."""
