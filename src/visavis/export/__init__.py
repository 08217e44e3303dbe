"""Models for other runtimes, each behind a parity gate."""
