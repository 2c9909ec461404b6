"""Every parameter of the SDKs' types, with other values: which answers still fit, and which don't.

The tests of the dialects hold the names against the installed SDKs.
"""

from typing import Any

Table = dict[str, list[tuple[str, Any]]]
"""Parameter → what another value is, and the value: NEUTRAL, KEY, or why the request is bypassed."""

FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOL = {"type": "function", "function": FUNCTION}
FLAT_TOOL = {"type": "function", "strict": True, **FUNCTION}

NEUTRAL, KEY = "neutral", "key"

CHAT_PARAMS: Table = {
    "audio": [("audio", {"format": "wav", "voice": "alloy"})],
    "frequency_penalty": [(KEY, 0.5)],
    "function_call": [(KEY, "auto")],
    "functions": [(KEY, [FUNCTION])],
    "logit_bias": [(KEY, {"50256": -100})],
    "logprobs": [(KEY, True)],
    "max_completion_tokens": [(KEY, 100)],
    "max_tokens": [(KEY, 100)],
    "messages": [(KEY, [{"role": "user", "content": "Is it cold?"}])],
    "metadata": [(NEUTRAL, {"ticket": "1"})],
    "modalities": [(KEY, ["text"]), ("audio", ["text", "audio"])],
    "model": [(KEY, "gpt-6-sol")],
    "moderation": [(KEY, {"model": "omni-moderation-latest"})],
    "n": [(KEY, 2)],
    "parallel_tool_calls": [(KEY, False)],
    "prediction": [(KEY, {"type": "content", "content": "Yes."})],
    "presence_penalty": [(KEY, 0.5)],
    "prompt_cache_key": [(NEUTRAL, "support")],
    "prompt_cache_options": [(NEUTRAL, {"mode": "explicit"}), ("prewarm", {"prewarm": True})],
    "prompt_cache_retention": [(NEUTRAL, "24h")],
    "reasoning_effort": [(KEY, "low")],
    "response_format": [(KEY, {"type": "json_object"})],
    "safety_identifier": [(NEUTRAL, "u-1")],
    "seed": [(KEY, 7)],
    "service_tier": [(NEUTRAL, "flex")],
    "stop": [(KEY, ["\n"])],
    "store": [(NEUTRAL, True)],
    "stream": [(NEUTRAL, True)],
    "stream_options": [(NEUTRAL, {"include_usage": True})],
    "temperature": [(KEY, 0), (KEY, 1.5), ("unreadable", "0"), ("unreadable", True), ("unreadable", -1)],
    "tool_choice": [(KEY, "none")],
    "tools": [(KEY, [TOOL]), ("server_tools", [{"type": "web_search"}])],
    "top_logprobs": [(KEY, 3)],
    "top_p": [(KEY, 0.5)],
    "user": [(NEUTRAL, "u-1")],
    "verbosity": [(KEY, "low")],
    "web_search_options": [("server_tools", {"search_context_size": "low"})],
}

RESPONSES_PARAMS: Table = {
    "access_programs": [(KEY, {"cyber": "standard"})],
    "background": [(NEUTRAL, False), ("background", True)],
    "context_management": [(KEY, [{"type": "compaction", "compact_threshold": 1000}])],
    "conversation": [("conversation", "conv_1")],
    "image": [(KEY, {"context_compression": "enabled"})],
    "include": [(KEY, ["reasoning.encrypted_content"])],
    "input": [(KEY, "Is it cold?")],
    "instructions": [(KEY, "Be kind.")],
    "max_output_tokens": [(KEY, 100)],
    "max_tool_calls": [(KEY, 1)],
    "metadata": [(NEUTRAL, {"ticket": "1"})],
    "model": [(KEY, "gpt-6-sol")],
    "moderation": [(KEY, {"model": "omni-moderation-latest"})],
    "parallel_tool_calls": [(KEY, False)],
    "previous_response_id": [("previous_response_id", "resp_1")],
    "prompt": [(KEY, {"id": "pmpt_1", "version": "2"}), ("prompt", {"id": "pmpt_1"})],
    "prompt_cache_key": [(NEUTRAL, "support")],
    "prompt_cache_options": [
        (NEUTRAL, {"ttl": "12h"}),
        ("prewarm", {"prewarm": True}),
        ("diagnostics", {"comparison_response_id": "resp_1"}),
    ],
    "prompt_cache_retention": [(NEUTRAL, "24h")],
    "reasoning": [(KEY, {"effort": "low"})],
    "safety_identifier": [(NEUTRAL, "u-1")],
    "service_tier": [(NEUTRAL, "flex")],
    "store": [(NEUTRAL, True), (KEY, False)],
    "stream": [(NEUTRAL, True)],
    "stream_options": [(NEUTRAL, {"include_obfuscation": False})],
    "temperature": [(KEY, 0), (KEY, 1.5), ("unreadable", "0"), ("unreadable", 10**400)],
    "text": [(KEY, {"format": {"type": "json_object"}})],
    "tool_choice": [(KEY, "none")],
    "tools": [
        (KEY, [FLAT_TOOL]),
        (KEY, [{"type": "namespace", "name": "n", "description": "d", "tools": [FLAT_TOOL]}]),
        ("server_tools", [FLAT_TOOL, {"type": "web_search"}]),
        ("server_tools", [{"type": "namespace", "tools": [{"type": "mcp"}]}]),
    ],
    "top_logprobs": [(KEY, 3)],
    "top_p": [(KEY, 0.5)],
    "truncation": [(KEY, "auto")],
    "user": [(NEUTRAL, "u-1")],
}

MESSAGES_PARAMS: Table = {
    "model": [(KEY, "claude-opus-4-8"), ("unreadable", None), ("unreadable", ""), ("unreadable", 5)],
    "max_tokens": [(KEY, 1001), ("prewarm", 0)],
    "messages": [
        (KEY, [{"role": "user", "content": "And of Spain?"}]),
        ("unreadable", []),
        ("unreadable", "hello"),
        ("unreadable", [{"role": "user", "content": " "}]),
        ("unreadable", [{"role": "assistant", "content": "a"}]),
    ],
    "system": [
        (KEY, "Be brief."),
        (KEY, [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]),
        (NEUTRAL, None),
        (NEUTRAL, []),
    ],
    "tools": [(KEY, [{"name": "look", "input_schema": {"type": "object"}}])],
    "tool_choice": [(KEY, {"type": "auto"}), (NEUTRAL, None)],
    "thinking": [(KEY, {"type": "adaptive"})],
    "output_config": [(KEY, {"effort": "low"})],
    "stop_sequences": [(KEY, ["END"])],
    "speed": [(KEY, "fast")],
    "inference_geo": [(KEY, "eu")],
    "user_profile_id": [(KEY, "uprof_1")],
    "workspace_id": [(KEY, "wrkspc_1")],
    "container": [("container", "container_1"), ("container", {"skills": []})],
    "stream": [(NEUTRAL, True), (NEUTRAL, False), ("unreadable", "yes")],
    "metadata": [(NEUTRAL, {"user_id": "u1"})],
    "cache_control": [(NEUTRAL, {"type": "ephemeral"})],
    "diagnostics": [
        (NEUTRAL, {"previous_message_id": None}),
        ("diagnostics", {"previous_message_id": "msg_1"}),
    ],
    "service_tier": [(NEUTRAL, "standard_only")],
}

MESSAGES_BEYOND: Table = {
    "mcp_servers": [("server_tools", [{"type": "url", "url": "https://x", "name": "x"}])],
    "thread": [("conversation", {"type": "create"})],
    "temperature": [(KEY, 0.5), ("unreadable", -1), ("unreadable", "hot")],
    "top_p": [(KEY, 0.5)],
    "top_k": [(KEY, 5)],
    "betas": [(KEY, ["a"])],
    "context_management": [(KEY, {"edits": []})],
    "compaction": [(KEY, {"type": "auto"})],
    "fallbacks": [(KEY, [{"model": "claude-opus-4-8"}])],
    "fallback_credit_token": [(KEY, "token_1")],
    "billing_policy": [(KEY, {"type": "standard"})],
    "a_field_of_tomorrow": [(KEY, 1)],
    "endpoint": [(KEY, "/v1/messages")],
}
"""What the types of the stable API don't have: betas, fields of older models, and of tomorrow."""
