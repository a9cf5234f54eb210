"""The text side: chat template, tokenizer, detokenizer, stop strings. Used by serving and by training."""

from __future__ import annotations

from .context import check_context
from .detokenizer import Detokenizer
from .model_text import ModelText
from .stop import StopMatcher

__all__ = ["Detokenizer", "ModelText", "StopMatcher", "check_context"]
