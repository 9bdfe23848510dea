"""Fetch web pages according to robots.txt, and store them."""
