"""Using a model without torch: recognizer, gallery, service."""
