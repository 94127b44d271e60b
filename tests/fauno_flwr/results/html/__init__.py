"""Tests of the reports in HTML."""
