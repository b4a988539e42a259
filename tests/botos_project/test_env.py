from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botos_project import databases, dotenv
from botos_project.env import BadSetting, Environment
from tests import zygote
from tests.botos_project.test_settings import PROJECT

# --- the file


def write(folder: Path, text: str) -> Path:
    path = folder / ".env"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("export NAME=exported", "exported"),
        ("  NAME = spaced out  ", "spaced out"),
        ("NAME=before # a comment", "before"),
        ("NAME=a#b", "a#b"),
        ('NAME="two words # not a comment" # a comment', "two words # not a comment"),
        ("NAME='it is \"quoted\"'", 'it is "quoted"'),
        ("NAME=postgres://u:p@h/n?a=b", "postgres://u:p@h/n?a=b"),
        ("NAME=", ""),
        ("NAME= # only a comment", ""),
        ("NAME=first\nNAME=second", "second"),
    ],
)
def test_it_reads_a_line(tmp_path: Path, line: str, value: str) -> None:
    assert dotenv.read(write(tmp_path, f"# a comment\n\n{line}\n")) == {"NAME": value}


@pytest.mark.parametrize("line", ["NAME", "two words=x", '"NAME"=x', 'NAME="open', "=hunter2", "NAME=#hunter2"])
def test_it_names_the_line_that_it_cannot_read_and_not_its_content(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"FINE=1\n{line}\n")

    with pytest.raises(BadSetting, match=r"botos\.E006 Line 2 of .* Hint: ") as caught:
        dotenv.read(path)

    assert "hunter2" not in str(caught.value)


def test_it_takes_a_missing_file_for_an_empty_one(tmp_path: Path) -> None:
    assert dotenv.read(tmp_path / "none") == {}


def test_it_prefers_the_real_environment_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTOS_ENV_FILE", str(write(tmp_path, "BOTH=file\nONLY=file")))
    monkeypatch.setenv("BOTH", "real")

    values = dotenv.environment()

    assert (values["BOTH"], values["ONLY"]) == ("real", "file")


# --- the first file


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SECRET_KEY")
    monkeypatch.setenv("BOTOS_ENV_FILE", str(tmp_path / ".env"))
    return tmp_path / ".env"


def test_it_makes_the_first_file_from_the_example_with_a_long_key_for_its_owner_only(path: Path) -> None:
    assert dotenv.ensure_secret_key() is True

    assert len(dotenv.read(path)["SECRET_KEY"]) >= 50
    assert "# TELEGRAM_BOT_TOKEN=" in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_it_makes_a_key_only_once(path: Path) -> None:
    dotenv.ensure_secret_key()
    first = path.read_text(encoding="utf-8")

    assert dotenv.ensure_secret_key() is False
    assert path.read_text(encoding="utf-8") == first


def test_it_adds_the_key_to_a_file_that_has_none_and_keeps_the_rest(path: Path) -> None:
    write(path.parent, "BOTOS_WINDOW=5")

    assert dotenv.ensure_secret_key() is True

    assert dotenv.read(path)["BOTOS_WINDOW"] == "5"
    assert dotenv.read(path)["SECRET_KEY"]


@pytest.mark.parametrize("name", ["SECRET_KEY", "SECRET_KEY_FILE"])
def test_it_makes_no_file_when_the_real_environment_has_a_key(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "/run/secrets/key")

    assert dotenv.ensure_secret_key() is False
    assert not path.exists()


def test_it_makes_no_file_when_files_are_switched_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTOS_ENV_FILE", "")

    assert dotenv.ensure_secret_key() is False


# --- typed answers


def test_it_takes_an_empty_value_for_none() -> None:
    env = Environment({"EMPTY": "  "})

    assert env.text("EMPTY", "default") == env.text("MISSING", "default") == "default"


@pytest.mark.parametrize("word", ["true", "1", "YES", "On"])
def test_it_reads_a_yes(word: str) -> None:
    assert Environment({"NAME": word}).boolean("NAME", default=False) is True


@pytest.mark.parametrize("word", ["false", "0", "No", "OFF"])
def test_it_reads_a_no(word: str) -> None:
    assert Environment({"NAME": word}).boolean("NAME", default=True) is False


def test_it_reads_numbers_and_lists() -> None:
    env = Environment({"INTEGER": "0250", "SECONDS": "1.5", "WORDS": "a, b c,,"})

    assert env.integer("INTEGER", 1) == 250
    assert env.seconds("SECONDS", 1) == 1.5
    assert env.words("WORDS") == ["a", "b", "c"]
    assert env.words("MISSING", "x,y") == ["x", "y"]


@pytest.mark.parametrize("value", ["", "http://127.0.0.1:8081/bot", "https://[::1]/"])
def test_it_reads_an_address(value: str) -> None:
    assert Environment({"NAME": value}).address("NAME") == value


@pytest.mark.parametrize(
    "value", ["host", "//host", "ftp://host", "https://", "http://host:port", "http://[::1", "ws://h"]
)
def test_it_refuses_what_is_no_address(value: str) -> None:
    with pytest.raises(BadSetting, match=r"botos\.E008 NAME .* Hint: write NAME=https://"):
        Environment({"NAME": value}).address("NAME")


@pytest.mark.parametrize("value", ["hunter2", "-1", "0", "1e400", "nan", "inf", "1_0", "٣"])
def test_it_refuses_what_is_no_number_above_0_and_does_not_repeat_it(value: str) -> None:
    env = Environment({"NAME": value})

    for ask in (env.integer, env.seconds):
        if ask == env.seconds and value in {"1_0", "٣"}:
            continue  # Python's float() reads them
        with pytest.raises(BadSetting, match=r"^botos\.E005 NAME is not a .* Hint: write NAME=7\.$"):
            ask("NAME", 7)


@pytest.mark.parametrize("value", ["hunter2", "-1", "1e400", "nan"])
def test_it_takes_0_seconds_only_where_they_mean_something(value: str) -> None:
    assert Environment({"NAME": "0"}).seconds("NAME", 7, zero=True) == 0
    with pytest.raises(BadSetting, match=r"^botos\.E005 NAME is not a number of seconds from 0\. Hint: write NAME=7"):
        Environment({"NAME": value}).seconds("NAME", 7, zero=True)


def test_it_refuses_a_word_that_is_no_choice() -> None:
    with pytest.raises(BadSetting, match=r"botos\.E005 NAME is not one of true, false"):
        Environment({"NAME": "hunter2"}).boolean("NAME", default=True)


def test_it_remembers_every_name_that_it_was_asked_for() -> None:
    env = Environment({})

    env.text("A")
    env.secret("B")
    env.boolean("C", default=True)
    env.integer("D", 1)
    env.seconds("E", 1)
    env.words("F")
    env.address("G")
    env.choice("H", "a", "a b")

    assert env.asked == set("ABCDEFGH")


# --- secrets


def test_it_reads_a_secret_from_the_variable_or_from_a_file_less_one_line_break(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from file \n\n", encoding="utf-8")
    env = Environment({"A": "from variable", "B_FILE": str(file)})

    assert env.secret("A") == "from variable"
    assert env.secret("B") == "from file \n"
    assert env.secret("C") == ""
    assert env.secrets == {"from variable", "from file \n"}


def test_it_refuses_a_secret_that_is_set_twice() -> None:
    with pytest.raises(BadSetting, match=r"botos\.E003 Both A and A_FILE are set\.") as caught:
        Environment({"A": "hunter2", "A_FILE": "/x"}).secret("A")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"hunter2\xff"])
def test_it_says_which_secret_file_it_cannot_read_and_not_what_is_in_it(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BadSetting, match=r"botos\.E004 A_FILE names a file that cannot be read: .*token\.") as caught:
        Environment({"A_FILE": str(file)}).secret("A")

    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


# --- databases


def test_it_reads_the_address_of_a_postgresql_database() -> None:
    found = databases.parse("postgres://al%40ice:p%2Fw%3A@db.example.org:6432/bot%20os?sslmode=require")

    assert found["ENGINE"] == "django.db.backends.postgresql"
    assert (found["USER"], found["PASSWORD"], found["NAME"]) == ("al@ice", "p/w:", "bot os")
    assert (found["HOST"], found["PORT"]) == ("db.example.org", "6432")
    ours = {"server_side_binding": True, "prepare_threshold": 5, "sslmode": "require"}
    assert {name: found["OPTIONS"][name] for name in ours} == ours
    assert (found["CONN_MAX_AGE"], found["CONN_HEALTH_CHECKS"]) == (0, True)


@pytest.mark.parametrize("requests", [8, 20])
def test_it_leaves_connections_to_the_bots_when_every_page_has_one(requests: int) -> None:
    pool = databases.parse("postgres://db/botos", web_requests=requests)["OPTIONS"]["pool"]

    assert pool["max_size"] - requests >= 10
    assert pool["timeout"] <= 10
    assert pool["reconnect_timeout"] <= 2


def test_it_reads_the_folder_of_a_unix_socket() -> None:
    found = databases.parse("postgresql:///botos?host=/run/postgresql")

    assert (found["HOST"], found["PORT"], "host" in found["OPTIONS"]) == ("/run/postgresql", "", False)


def test_it_notices_a_postgresql_server_that_fell_silent() -> None:
    found = databases.parse("postgres://db/botos?tcp_user_timeout=5000")["OPTIONS"]

    assert int(found["keepalives_idle"]) + int(found["keepalives_interval"]) * int(found["keepalives_count"]) <= 30
    assert (found["connect_timeout"], found["tcp_user_timeout"]) == ("10", "5000")


def test_it_has_the_server_end_a_transaction_that_stands_still() -> None:
    assert databases.parse("postgres://db/botos")["OPTIONS"]["options"] == "-c idle_in_transaction_session_timeout=10s"
    assert databases.parse("postgres://db/botos?options=")["OPTIONS"]["options"] == ""


@pytest.mark.parametrize(("asked", "expected"), [("none", None), ("0", 0), ("20", 20)])
def test_it_prepares_statements_as_a_pooler_allows(asked: str, expected: int | None) -> None:
    found = databases.parse(f"postgres://db/botos?prepare_threshold={asked}")

    assert found["OPTIONS"]["prepare_threshold"] == expected


@pytest.mark.parametrize(
    ("url", "path"),
    [("sqlite:///b.sqlite3", "b.sqlite3"), ("sqlite:////var/lib/b%20c.sqlite3", "/var/lib/b c.sqlite3")],
)
def test_it_reads_the_path_of_a_sqlite_database(url: str, path: str) -> None:
    assert databases.parse(url)["NAME"] == path


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hunter2@h/n",
        "postgres://u:hunter2@h:port/n",
        "postgres://u:hunter2@h",
        "sqlite://hunter2",
        "hunter2",
        "//[",
    ],
)
def test_it_refuses_another_address_without_repeating_it(url: str) -> None:
    with pytest.raises(BadSetting, match=r"botos\.E007 DATABASE_URL") as caught:
        databases.parse(url)

    assert "hunter2" not in str(caught.value)


@given(st.text())
def test_it_refuses_any_nonsense_with_a_clear_error(url: str) -> None:
    with contextlib.suppress(BadSetting):
        databases.parse(url)


# --- the key, whatever stands in the file


@pytest.mark.parametrize("own", [None, "", "  "])
@pytest.mark.parametrize(
    "body",
    [
        "",
        "SECRET_KEY=",
        "export SECRET_KEY=",
        'SECRET_KEY=""',
        "SECRET_KEY='' # a comment",
        "SECRET_KEY= # a comment",
        " SECRET_KEY = \n",
        "SECRET_KEY=\nSECRET_KEY=",
        "A=1\r\nSECRET_KEY=\r\nB=2",
        "A=1\r\nB=2",
        "\ufeffSECRET_KEY=",
        "# SECRET_KEY=old",
    ],
)
def test_it_never_writes_a_second_key(path: Path, monkeypatch: pytest.MonkeyPatch, body: str, own: str | None) -> None:
    if own is not None:
        monkeypatch.setenv("SECRET_KEY", own)
    path.write_bytes(body.encode())

    assert [dotenv.ensure_secret_key() for _ in range(3)] == [True, False, False]

    written = path.read_bytes().decode()
    assert len(re.findall(r"(?m)^(?:export )?SECRET_KEY=[\w-]{50,}\r?$", written)) == 1
    assert len(dotenv.environment()["SECRET_KEY"]) >= 50
    assert written.count("\r\n") in {0, written.count("\n")}


def test_it_keeps_a_key_that_an_empty_line_hides(path: Path) -> None:
    path.write_text("SECRET_KEY=old\nSECRET_KEY=\n")

    with pytest.raises(BadSetting, match=r"botos\.E017 "):
        dotenv.ensure_secret_key()

    assert path.read_text() == "SECRET_KEY=old\nSECRET_KEY=\n"


# --- names that nothing reads


def test_it_names_the_setting_that_a_misspelt_one_is_nearest_to() -> None:
    env = Environment({"BOTOS_WOKERS": "1", "BOTOS_X": "1", "BOTOS_KEY_FILE": "/dev/null"}, ["TELEGRM_TOKEN", "MY_OWN"])
    for name in ("BOTOS_WORKERS", "TELEGRAM_TOKEN"):
        env.text(name)
    env.secret("BOTOS_KEY")

    assert env.unknown() == [
        "BOTOS_WOKERS is not a setting of BotOS. Hint: did you mean BOTOS_WORKERS?",
        "BOTOS_X is not a setting of BotOS. Hint: .env.example lists them all.",
        "TELEGRM_TOKEN is not a setting of BotOS. Hint: did you mean TELEGRAM_TOKEN?",
    ]


# --- names that settings had before

RENAMED = {"BOTOS_OLD": "BOTOS_NEW", "BOTOS_FORMER_SECRET": "BOTOS_SECRET"}


def renamed(**values: str) -> Environment:
    """An environment that was asked for a setting and a secret with new names."""
    env = Environment(values, values, RENAMED)
    env.text("BOTOS_NEW")
    env.secret("BOTOS_SECRET")
    return env


def test_it_reads_old_names_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2\n")
    env = renamed(BOTOS_OLD="1", BOTOS_FORMER_SECRET_FILE=str(tmp_path / "key"))

    assert (env.text("BOTOS_NEW"), env.secret("BOTOS_SECRET")) == ("1", "hunter2")
    assert env.is_set("BOTOS_NEW")
    assert "hunter2" in env.secrets
    assert env.outdated() == (
        "Settings have new names: BOTOS_FORMER_SECRET_FILE is now BOTOS_SECRET_FILE, BOTOS_OLD is now BOTOS_NEW. "
        "Hint: rename them: the next release ignores the old names."
    )
    assert env.unknown() == []


@pytest.mark.parametrize("old", ["BOTOS_FORMER_SECRET", "BOTOS_FORMER_SECRET_FILE"])
@pytest.mark.parametrize("form", ["BOTOS_SECRET", "BOTOS_SECRET_FILE"])
def test_a_new_name_wins_and_another_value_under_the_old_one_is_named(tmp_path: Path, form: str, old: str) -> None:
    (tmp_path / "key").write_text("new")
    value = str(tmp_path / "key") if form.endswith("_FILE") else "new"
    env = renamed(**{form: value, old: "other"})

    assert env.secret("BOTOS_SECRET") == "new"
    assert env.unknown() == [f"{old} has no effect: {form} is set, too. Hint: delete {old}."]
    assert env.outdated() == ""


def test_it_is_quiet_about_an_old_name_that_is_empty_or_says_the_same() -> None:
    same, empty = renamed(BOTOS_NEW="1", BOTOS_OLD=" 1 "), renamed(BOTOS_NEW="", BOTOS_OLD=" ")

    assert (same.text("BOTOS_NEW"), empty.text("BOTOS_NEW", "default")) == ("1", "default")
    assert [*same.unknown(), *empty.unknown(), same.outdated(), empty.outdated()] == ["", ""]


def test_an_empty_new_name_lets_the_old_one_speak() -> None:
    """As compose files pass every name on, whether it is set or not."""
    assert renamed(BOTOS_NEW="", BOTOS_OLD="1").text("BOTOS_NEW") == "1"


def test_it_leads_from_a_misspelt_old_name_to_the_new_one() -> None:
    env = renamed(BOTOS_OLDD="1", BOTOS_OLD_FILE="/dev/null")

    assert env.unknown() == [
        "BOTOS_OLDD is not a setting of BotOS. Hint: did you mean BOTOS_NEW?",
        "BOTOS_OLD_FILE is not a setting of BotOS. Hint: .env.example lists them all.",
    ]
    assert env.outdated() == ""


def test_make_run_warns_once_of_a_misspelt_setting(tmp_path: Path) -> None:
    """A platform that does not exist ends the bots before they start."""
    recipe = re.search(r"(?m)^run:.*\n((?:\t.+\n)+)", (PROJECT / "Makefile").read_text(encoding="utf-8"))
    assert recipe
    commands = re.findall(r"\$\(BIN\)/python (.+)", recipe[1])
    values = {"BOTOS_ENV_FILE": "", "SECRET_KEY": "k" * 50, "BOTOS_DATA_DIR": str(tmp_path), "BOTOS_WOKERS": "1"}
    done = [
        zygote.run(
            [*shlex.split(command), *(["--platforms", "icq"] if "runbots" in command else [])],
            environment={"PATH": os.environ["PATH"], **values},
        )
        for command in commands
    ]

    assert [one.returncode for one in done] == [0, 0, 2], [one.stderr for one in done]
    assert ["BOTOS_WOKERS is not a setting" in one.stderr for one in done] == [False, False, True]
    assert done[-1].stderr.count("BOTOS_WOKERS") == 1


def test_runbots_warns_once_of_old_names(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BOTOS_NOTICE=off\n", encoding="utf-8")
    values = {"BOTOS_ENV_FILE": str(tmp_path / ".env"), "SECRET_KEY": "k" * 50, "BOTOS_PROXIES": "1"}
    program = ["manage.py", "runbots", "--platforms", "icq"]
    done = zygote.run(program, environment={"PATH": os.environ["PATH"], "BOTOS_DATA_DIR": str(tmp_path), **values})

    [line] = [line for line in done.stderr.splitlines() if "BOTOS_" in line and "Hint: set" not in line]
    assert "BOTOS_NOTICE is now BOTOS_PRIVACY_NOTICE, BOTOS_PROXIES is now BOTOS_TRUSTED_PROXIES. Hint: " in line
    assert " WARNING " in line


def test_the_doctor_names_a_misspelt_setting_once(tmp_path: Path) -> None:
    values = {"BOTOS_ENV_FILE": "", "SECRET_KEY": "k" * 50, "BOTOS_DATA_DIR": str(tmp_path), "BOTOS_WOKERS": "1"}
    done = zygote.run(["manage.py", "doctor"], environment={"PATH": os.environ["PATH"], **values})

    assert (done.stdout + done.stderr).count("BOTOS_WOKERS") == 1
