"""Tests against peers that other people wrote."""
