"""Looking a picture set over: damage, duplicates, label errors."""
