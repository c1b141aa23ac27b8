"""Tuners: who decides what is trained next."""
