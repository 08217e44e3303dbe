"""The service: a FastAPI application over a recognizer and a gallery."""
