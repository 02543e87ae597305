"""Flows on manifolds: the densities of the earth, mixtures that are known, and speed."""
