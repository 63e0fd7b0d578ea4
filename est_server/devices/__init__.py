"""Device lists: formats and their import."""
