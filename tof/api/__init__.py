"""The Service API and the operations API, over aiohttp."""

from __future__ import annotations
