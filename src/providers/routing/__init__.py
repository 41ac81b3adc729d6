"""A provider made of providers: fallback and routing.

    provider = FallbackProvider([fast, cheap, local])        # or create_llm_provider("fallback", targets=[...])
    response = await provider.execute("Hello")
    response.metadata["target"], response.metadata.get("attempts")

The rules:

- **Who is asked.** The targets in the order of `choice`. Passed over, with the reason in `metadata["attempts"]`, is one
  that cannot do what the call needs (tools, pictures...), one whose window the prompt surely does not fit while another
  one's may, and one that rests. Where no target can, `LLMProviderUnsupportedOperationError` names each.
- **With what.** With the request that the target's own configuration makes of what the call gives: the target's model,
  its defaults below, what the call and the fallback's configuration give on top.
- **What moves on** to the next target stands in one table, `RULES`: outages, time-outs, throttling, an account without
  money, a key or model that is refused or missing (a warning, once), a prompt that is too long (only to larger
  windows), what a target cannot do. A wrong call, a refusal for its content and a budget that is used up end the call.
- **No replay.** Once a piece of the answer was given out, a break is an error, unless `replay=True`.
- **Retries have one owner.** One attempt of the fallback's policy is one walk along the targets, each asked at most
  once; the targets' own retries stand down, also of a fallback among them. With one target it is that policy exactly.
- **Who rests.** A target that failed `failures` times in a row is not asked for `cooldown` seconds, then by one call,
  and by all if that one is answered. One that throttles rests as long as it asks for (`Retry-After`), or a second; one
  whose key, model or account is refused rests for the cooldown. Where all rest, the one that is due first is asked
  nevertheless: a call never fails without a request.
- **Accounts.** `metadata["attempts"]` lists what failed and what was passed over, `providers.costs.total_usage` adds up
  what all of them used. Targets price and book their own calls; a budget shared with them must not stand around the
  fallback too, or their calls are booked twice. Embeddings fall back to targets of the same model only.
- **Kept conversations** (`previous_response_id`) belong to the target that keeps them; others refuse the id.
"""

from .choice import Choice
from .health import Health
from .provider import FallbackProvider
from .rules import OPENING, RULES, Rule, rule_of

__all__ = ["OPENING", "RULES", "Choice", "FallbackProvider", "Health", "Rule", "rule_of"]
