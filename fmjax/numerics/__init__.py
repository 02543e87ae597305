"""Numerics that the mathematics needs: inverting a monotone function, the assignment problem."""
