"""What an evaluation shows: tables, plots, a page."""
