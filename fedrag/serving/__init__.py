"""Lets people and programs ask a trained system: an HTTP service with a page, and the API of OpenAI."""
