"""A conversation's last question, rewritten by an LLM."""

from pathlib import Path

import anyio.to_thread
import pytest

from tests.langcache.conftest import calling, started
from tests.stub_llm import LLM
from tests.stub_openai import failure, running

pytestmark = pytest.mark.anyio

BEFORE, ASKED = ["How do I reset my password?"], "And on a phone?"
MEANT, SAID = "How do I reset my password on a phone?", "In the app."


async def test_it_is_rewritten_where_the_policy_says_so(tmp_path: Path) -> None:
    async with running(LLM("openai")) as llm:
        llm.mode = llm.saying(lambda _: MEANT)
        given = {"rewriter": "openai", "rewriter_base_url": llm.url, "rewriter_model": "m"}
        async with (
            started(tmp_path, **given, rewriter_timeout_s="30") as one,
            calling(f"http://127.0.0.1:{one.port}", "any", "c", sync=False) as cache,
        ):
            await cache("set", prompt=MEANT, response=SAID, attributes={"a": "1"})
            found = await cache("conversational_search", prompt=ASKED, context=BEFORE)
            assert (found.actual_prompt, found.data, llm.calls) == (ASKED, [], 0)

            def put_policy() -> None:
                path = "/v1/policies?agent_type=langcache:c"
                assert one.http.put(path, json={"history": "rewrite"}).is_success

            await anyio.to_thread.run_sync(put_policy)
            for _ in range(2):
                found = await cache("conversational_search", prompt=ASKED, context=BEFORE)
                assert found.actual_prompt == MEANT
                assert [(one.response, one.search_strategy) for one in found.data] == [(SAID, "exact")]
            assert llm.calls == 1
            none = await cache("conversational_search", prompt=ASKED, context=BEFORE, attributes={"a": "2"})
            assert (none.actual_prompt, none.data) == (MEANT, [])
            llm.mode = failure(500)
            lost = await cache("conversational_search", prompt="And on a tablet?", context=BEFORE)
            assert (lost.actual_prompt, lost.data) == ("And on a tablet?", [])
