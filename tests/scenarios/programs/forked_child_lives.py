"""A child is forked beside open connections and waits; the parent closes its own; then the child makes a call."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import warnings

from providers import Client, create_llm_provider

logging.getLogger("asyncio").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=r".*multi-threaded.*fork", category=DeprecationWarning)


def main() -> None:
    """Two connections are kept by two loops at the fork: the sync face's, and one that runs."""
    client = Client(create_llm_provider("openai", "model-1"))
    assert client.get_response("from the parent") == "from the parent"
    go, going = os.pipe()

    async def fork() -> int:
        answer = await client.provider.execute("from the parent's loop")
        assert answer.content == "from the parent's loop"  # type: ignore[union-attr]
        return os.fork()

    runner = asyncio.Runner()
    pid = runner.run(fork())
    if pid == 0:
        os.close(going)
        os.read(go, 1)
        assert client.get_response("from the child") == "from the child"
        client.close()
        os._exit(0)
    os.close(go)
    runner.close()
    client.close()
    print("closed", flush=True)
    sys.stdin.readline()
    os.close(going)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the child failed"
    print("the child lived", flush=True)


if __name__ == "__main__":
    main()
