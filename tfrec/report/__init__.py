"""`python -m tfrec.report`: what is known of runs, as one HTML file."""
