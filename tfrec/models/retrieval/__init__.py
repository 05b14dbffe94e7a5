"""Models that find items among all of them."""
