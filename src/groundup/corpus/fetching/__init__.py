"""Fetch web pages that robots.txt allows, and store them."""
