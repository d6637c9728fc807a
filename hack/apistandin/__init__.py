"""A Kubernetes API server for tests that is strict where a real one is. See README.md."""

from hack.apistandin.access import EVERYTHING, Rule
from hack.apistandin.faults import Fault, What
from hack.apistandin.standin import ApiStandin

__all__ = ["EVERYTHING", "ApiStandin", "Fault", "Rule", "What"]
