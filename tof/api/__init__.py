"""The Service API and the operations API, over aiohttp."""
