"""What an exported file must pass."""
