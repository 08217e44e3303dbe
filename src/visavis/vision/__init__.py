"""Pictures, alignment, preprocessing and detection."""
