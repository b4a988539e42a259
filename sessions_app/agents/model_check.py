"""Asks the model in the settings one small question, to show an operator whether it answers."""

from __future__ import annotations

from django.conf import settings
from pydantic_ai.direct import model_request
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, ModelHTTPError
from pydantic_ai.messages import ModelRequest

from sessions_app.agents.base import AgentMisconfigured
from sessions_app.agents.model import Endpoint, build_model

QUESTION = "Answer with one word: ready?"
KEY_REFUSED, NOT_FOUND, TOO_MANY = {401, 403}, {400, 404}, 429


async def ask() -> str:
    """The model's answer. Raises AgentMisconfigured with the problem and a hint, without a secret."""
    endpoint = Endpoint(settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL)
    model = build_model(settings.BOTOS_MODEL, endpoint)
    try:
        async with model:
            answer = await model_request(model, [ModelRequest.user_text_prompt(QUESTION)])
    except AgentRunError as error:  # not chained: an error page may quote the key
        raise AgentMisconfigured(_described(error, endpoint)) from None
    return answer.text or ""


def _described(error: AgentRunError, endpoint: Endpoint) -> str:
    status = error.status_code if isinstance(error, ModelHTTPError) else 0
    if status in KEY_REFUSED:
        return f"the server refuses the key (HTTP {status}) Hint: correct OPENAI_API_KEY."
    if status in NOT_FOUND:
        hint = "correct the name in BOTOS_MODEL, or the path in OPENAI_BASE_URL, which mostly ends with /v1."
        return f"the server does not know the model {settings.BOTOS_MODEL!r} (HTTP {status}) Hint: {hint}"
    if status == TOO_MANY:
        return "the server refuses more requests for now (HTTP 429) Hint: look at the limits of the account."
    if status:
        return f"the server fails (HTTP {status}) Hint: try again; if it stays so, look at the log of the server."
    if isinstance(error, ModelAPIError):
        hint = (
            "check OPENAI_BASE_URL, and that the server is up."
            if endpoint.base_url
            else "check this machine's network."
        )
        return f"the server cannot be reached Hint: {hint}"
    hint = "check that OPENAI_BASE_URL leads to a server with OpenAI's protocol."
    return f"the server's answer cannot be read ({type(error).__name__}) Hint: {hint}"
