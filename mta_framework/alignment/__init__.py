"""Multi-granular trajectory alignment: spans of the student's key layers against those of the teacher's."""

from mta_framework.alignment.objective import Alignment

__all__ = ["Alignment"]
