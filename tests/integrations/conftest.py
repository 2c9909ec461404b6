"""Frameworks that are told another base URL, and nothing else.

The environment is set before they are imported: that is when they read it.
"""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else the import downloads a price list
os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"  # else each run is told to api.openai.com

from tests.proxy.conftest import http, provider, question, service, standing

__all__ = ["http", "provider", "question", "service", "standing"]
