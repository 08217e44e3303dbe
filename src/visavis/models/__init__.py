"""What a MODEL is: its card, its folder, its weights in every format, and how one is loaded."""
