"""The server: one model for many users over HTTP, each with a memory of their own; the API is OpenAI's"""
