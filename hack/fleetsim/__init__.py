"""Simulated fleets: the cluster sides of many agents against one API server stand-in."""
