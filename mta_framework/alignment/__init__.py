"""Multi-granular trajectory alignment: losses between the spans of student and teacher at their key layers."""

from mta_framework.alignment.objective import Alignment, WeightedTerm

__all__ = ["Alignment", "WeightedTerm"]
