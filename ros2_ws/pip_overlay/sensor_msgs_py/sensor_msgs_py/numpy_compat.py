"""Conversions between structured and plain arrays; upstream carries copies for numpy older than 1.16."""

from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured

__all__ = ["structured_to_unstructured", "unstructured_to_structured"]
