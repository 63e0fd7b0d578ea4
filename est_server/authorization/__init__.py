"""Authorizers: who may have which certificate."""
