"""Tests of the monthly figures and the reports made from them."""
