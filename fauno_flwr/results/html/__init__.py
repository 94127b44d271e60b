"""A run as one HTML file that needs no network: its numbers, and what draws them."""
