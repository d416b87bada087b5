"""A client for chat models behind an OpenAI-compatible endpoint, for metrics that need a judge.

``Chat.ask`` asks many questions concurrently, retries failures that may be temporary, never exceeds a given number of
requests, and keeps every answer on disk::

    chat = Chat("judge", Endpoint("https://api.openai.com/v1", "gpt-4o", "OPENAI_API_KEY"), max_requests=1000)
    texts = chat.ask([Question("prompt 1", "How good is ...?")], check, cache_dir)
"""

from mta_framework.chat.asking import Chat, Question
from mta_framework.chat.endpoint import Endpoint

__all__ = ["Chat", "Endpoint", "Question"]
