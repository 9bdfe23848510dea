"""Requests and responses in the format of OpenAI's API."""
