"""What enrollment costs the server, measured from outside; run with ``make bench``."""
