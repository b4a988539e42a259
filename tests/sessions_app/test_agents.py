from __future__ import annotations

import inspect
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic_ai.models.test import TestModel

from sessions_app import agents, texts
from sessions_app.agents import Agent, AgentMisconfigured, RecallAgent, as_agent, ask, configuration_problem, load_agent
from sessions_app.agents.recall import HELP, NOTICE
from sessions_app.context import get_session_context
from sessions_app.messages import Reply, Turn
from tests.sessions_app.agent_samples import a_turn, user
from tests.sessions_app.model_server import KEY, ModelServer, says

Configure = Callable[..., None]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Put a plain object in the place of Django's settings, and nothing in the environment."""
    for name in ("BOTOS_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def put(**values: str) -> None:
        monkeypatch.setattr(agents, "settings", SimpleNamespace(configured=True, **values))

    monkeypatch.setattr(agents, "settings", SimpleNamespace(configured=False))
    return put


@pytest.fixture
def deployer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A deployer's own module, for BOTOS_AGENT to name."""
    module = ModuleType("deployers_module")
    monkeypatch.setitem(sys.modules, "deployers_module", module)
    return module


class Chatty:
    def __init__(self, instructions: str = "") -> None:
        self.chat_history: list[dict[str, str]] = []
        self.instructions = instructions

    def chat(self, prompt: str) -> str:
        self.chat_history.append({"role": "user", "content": prompt})
        return f"{self.instructions} heard {len(self.chat_history)}"


def uncopyable(instructions: str = "") -> Chatty:
    agent: Any = Chatty(instructions)
    agent.lock = threading.Lock()
    return agent  # type: ignore[no-any-return]


def whoami() -> str:
    ctx = get_session_context()
    return f"You are {ctx.user_name or ctx.user_id} on {ctx.platform}"


def test_it_has_the_interface_of_the_original() -> None:
    agent = Agent(name="assistant", instructions="Use whoami when asked.", tools=[whoami])

    assert (agent.name, agent.instructions, agent.tools) == ("assistant", "Use whoami when asked.", (whoami,))
    assert list(inspect.signature(Agent).parameters) == ["name", "instructions", "tools", "model"]
    assert as_agent(agent) is agent


@pytest.mark.asyncio
async def test_it_recalls_without_a_model(configure: Configure) -> None:
    answer = await ask(Agent(), a_turn("Who am I?", user("I'm Alice")), limit=5)

    assert answer == f"Alice.\n\n{NOTICE}"


@pytest.mark.asyncio
async def test_it_uses_its_tools_without_a_model(configure: Configure) -> None:
    answer = await ask(Agent(tools=[whoami]), a_turn("whoami"), limit=5)

    assert answer == f"You are Alice on telegram\n\n{NOTICE}"


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ["settings", "environment", "argument"])
async def test_it_uses_the_model_that_is_named(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    async with ModelServer().running() as server:
        server.answer = lambda body: says("From the model.")
        values = {"BOTOS_MODEL": "openai:tiny", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.base_url}
        if where == "environment":
            for name, value in values.items():
                monkeypatch.setenv(name, value)
        else:
            configure(**(values | ({"BOTOS_MODEL": ""} if where == "argument" else {})))
        agent = Agent(instructions="Be brief.", model="openai:tiny" if where == "argument" else None)

        assert await ask(agent, a_turn("Hi"), limit=10) == "From the model."

        assert server.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
        assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.asyncio
async def test_it_takes_no_model_from_the_environment_that_the_settings_leave_empty(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOTOS_MODEL", "openai:tiny")
    configure(BOTOS_MODEL="")

    assert (await ask(Agent(), a_turn("Hi"), limit=5)).startswith(HELP)


@pytest.mark.asyncio
async def test_it_takes_an_empty_model_for_none(configure: Configure) -> None:
    configure(BOTOS_MODEL="openai:tiny")

    assert (await ask(Agent(model=""), a_turn("Hi"), limit=5)).startswith(HELP)


@pytest.mark.asyncio
async def test_it_takes_a_model_object(configure: Configure) -> None:
    assert await ask(Agent(model=TestModel(custom_output_text="Hi.")), a_turn("Hello"), limit=10) == "Hi."


@pytest.mark.asyncio
async def test_it_needs_a_key_only_when_it_is_asked(configure: Configure) -> None:
    agent = Agent(model="openai:gpt-5-mini")

    with pytest.raises(AgentMisconfigured, match="OPENAI_API_KEY") as caught:
        await ask(agent, a_turn("Hi"), limit=10)

    assert caught.value.words == texts.OPERATOR_NEEDED


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, None),
        ({"BOTOS_MODEL": ""}, None),
        ({"BOTOS_MODEL": "openai:gpt-5-mini", "OPENAI_API_KEY": KEY}, None),
        ({"BOTOS_MODEL": "openai:tiny", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, None),
        ({"BOTOS_MODEL": "openai:gpt-5-mini"}, "BOTOS_MODEL.*OPENAI_API_KEY"),
        ({"BOTOS_MODEL": "gpt", "OPENAI_API_KEY": KEY}, "BOTOS_MODEL"),
    ],
)
def test_it_tells_the_checks_what_is_wrong(configure: Configure, values: dict[str, str], problem: str | None) -> None:
    configure(**values)

    found = configuration_problem()

    assert (found is None) if problem is None else re.search(problem, found or "")


def test_it_tells_the_checks_about_a_missing_package(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sessions_app.agents.model", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)

    assert configuration_problem("openai:tiny") == "BOTOS_MODEL needs the package pydantic_ai"


def test_it_loads_the_standard_agent_without_a_path() -> None:
    agent = load_agent("", instructions="Be brief.", model="openai:tiny")

    assert isinstance(agent, Agent)
    assert (agent.instructions, agent.model) == ("Be brief.", "openai:tiny")


@pytest.mark.asyncio
async def test_it_loads_an_agent_a_class_and_a_function(deployer: ModuleType) -> None:
    class Custom:
        def __init__(self, instructions: str) -> None:
            self.instructions = instructions

        async def reply(self, turn: Turn) -> Reply:
            return Reply(self.instructions)

    def make(*, instructions: str, model: object, other: int = 1) -> Custom:
        return Custom(f"made with {instructions} {model} {other}")

    vars(deployer).update(ready=Custom("ready"), Custom=Custom, make=make)

    async def answer(name: str) -> str:
        agent = load_agent(f"deployers_module.{name}", instructions="words", model="m")
        return await ask(agent, a_turn("Hi"), limit=5)

    assert load_agent("deployers_module.ready") is vars(deployer)["ready"]
    assert await answer("Custom") == "words"
    assert await answer("make") == "made with words m 1"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["ready", "Chatty", "make"])
async def test_it_loads_chat_agents_that_keep_nothing(deployer: ModuleType, name: str) -> None:
    vars(deployer).update(ready=Chatty("words"), Chatty=Chatty, make=lambda: uncopyable("words"))
    agent = load_agent(f"deployers_module.{name}", instructions="words")

    answers = [await ask(agent, a_turn("Hi"), limit=5) for _ in range(2)]

    assert answers == ["words heard 1", "words heard 1"]


def test_it_loads_its_own_agents_by_name() -> None:
    assert isinstance(load_agent("sessions_app.agents.RecallAgent", instructions="words"), RecallAgent)
    assert load_agent("sessions_app.agents.Agent", instructions="words").instructions == "words"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("agent", "must be the path of an object in a module"),
        ("no_such_module.agent", "no_such_module"),
        ("deployers_module.nothing", "nothing"),
        ("deployers_module.number", "neither reply"),
        ("deployers_module.make_text", "neither reply"),
        ("deployers_module.broken", "ZeroDivisionError"),
        ("deployers_module.picky", "missing 1 required"),
        ("deployers_module.uncopyable", "pass a factory"),
    ],
)
def test_it_says_what_is_wrong_with_the_agent_that_is_named(deployer: ModuleType, path: str, problem: str) -> None:
    def picky(token: str) -> Chatty:
        return Chatty(token)

    vars(deployer).update(
        number=7, make_text=lambda: "text", broken=lambda: 1 // 0, picky=picky, uncopyable=uncopyable()
    )

    with pytest.raises(AgentMisconfigured, match=problem) as caught:
        load_agent(path)

    assert f"BOTOS_AGENT is {path!r}" in str(caught.value)


def test_it_exports_what_it_says() -> None:
    assert [name for name in agents.__all__ if not hasattr(agents, name)] == []


def test_it_imports_neither_models_nor_a_model_library() -> None:
    program = "import sys, sessions_app.agents as a; a.Agent(model='openai:x'); print(sorted(sys.modules))"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)

    assert "'pydantic_ai'" not in loaded.stdout
    assert "'sessions_app.models'" not in loaded.stdout
