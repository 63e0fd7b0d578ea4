"""Signatures over device lists: their forms, and who may make them."""
