"""Asks a chat model behind an OpenAI-compatible endpoint, for metrics that need a judge.

``Chat.ask`` puts many questions at once, asks again where that may help, never sends more requests than allowed, and
keeps every answer on disk::

    chat = Chat("judge", Endpoint("https://api.openai.com/v1", "gpt-4o", "OPENAI_API_KEY"), max_requests=1000)
    texts = chat.ask([Question("prompt 1", "How good is ...?")], check, cache_dir)
"""

from mta_framework.chat.chat import Chat, Question
from mta_framework.chat.endpoint import Endpoint

__all__ = ["Chat", "Endpoint", "Question"]
