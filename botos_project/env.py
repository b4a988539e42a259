"""Settings from the environment: what is asked for is read, checked and explained in one place."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from botos_project import masking


class BadSetting(ImproperlyConfigured):
    """A setting that cannot be used. The text has an id and a hint, and never the value: it may be a secret."""

    def __init__(self, code: str, problem: str, *, hint: str) -> None:
        super().__init__(f"botos.{code} {problem} Hint: {hint}")


# Read by the modules that they are about, which work without Django.
ELSEWHERE = frozenset({"BOTOS_ENV_FILE", "PRAISONAI_IDENTITY_PATH"})

# Old names of settings with the new ones. This release is the last that reads the old names.
RENAMED = {
    "BOTOS_NOTICE": "BOTOS_PRIVACY_NOTICE",
    "BOTOS_PROXIES": "BOTOS_TRUSTED_PROXIES",
    "BOTOS_POLLER_SECONDS": "BOTOS_RECEIVER_LEASE_SECONDS",
    "BOTOS_KEEP_EVENTS_DAYS": "BOTOS_RETENTION_EVENTS_DAYS",
    "BOTOS_KEEP_KEYS_DAYS": "BOTOS_RETENTION_KEYS_DAYS",
    "BOTOS_KEEP_DELIVERIES_DAYS": "BOTOS_RETENTION_DELIVERIES_DAYS",
    "BOTOS_KEEP_PAIRINGS_DAYS": "BOTOS_RETENTION_PAIRINGS_DAYS",
    "BOTOS_KEEP_AUDIT_DAYS": "BOTOS_RETENTION_AUDIT_DAYS",
    "BOTOS_KEEP_HISTORY_DAYS": "BOTOS_RETENTION_HISTORY_DAYS",
}


class Environment:
    """Typed answers about one set of variables. A variable that is empty counts as not set.

    `listed` are the names that stand in `.env`, and `renamed` has the new name of each old one. `asked` remembers every
    name, so that a test can hold the documents against it, and `secret_names` those that hold secrets; `secrets`
    remembers every secret value, so that the logs can leave it out.
    """

    def __init__(
        self, values: Mapping[str, str], listed: Iterable[str] = (), renamed: Mapping[str, str] = RENAMED
    ) -> None:
        self._values = dict(values)
        self._written = {name for name in values if name.startswith("BOTOS_")} | set(listed)
        self.secret_names: set[str] = set()
        self.asked: set[str] = set()
        self.secrets: set[str] = set()
        self._new_names: dict[str, str] = {}  # by old name
        self._read: dict[str, str] = {}  # the new name by the old one that gave its value
        self._ignored: dict[str, str] = {}  # by an old name with another value: the name whose value counts
        for old, new in renamed.items():
            self._read_old_name(old, new)

    def _read_old_name(self, old: str, new: str) -> None:
        """Take the value of an old name, or its file, as that of the new one. Anything under the new name wins."""
        forms = {old: new, f"{old}_FILE": f"{new}_FILE"}
        winner = next((name for name in forms.values() if self.is_set(name)), "")
        for old_form in filter(self.is_set, forms):
            value = self._values.pop(old_form)
            if not winner:
                self._values[forms[old_form]] = value
                self._read[old_form] = forms[old_form]
            elif value.strip() != self._values.get(forms[old_form], "").strip():
                self._ignored[old_form] = winner
        self._new_names |= forms

    def is_set(self, name: str) -> bool:
        """Whether the setting has a value of its own."""
        return bool(self._values.get(name, "").strip())

    def unknown(self) -> list[str]:
        """A sentence for each name without effect, to be asked for when all settings are read.

        These are BOTOS_ names that nothing asked for, names in `.env` that are nearly known (others may be those of an
        agent of one's own), and old names whose new names have another value.
        """
        known = self._known()
        sentences = []
        for name in sorted(self._written):
            near = [] if name in known else difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
            if name in known and name in self._ignored:
                sentences.append(f"{name} has no effect: {self._ignored[name]} is set, too. Hint: delete {name}.")
            elif near:
                sentences.append(f"{name} is not a setting of BotOS. Hint: did you mean {known[near[0]]}?")
            elif name not in known and name.startswith("BOTOS_"):
                sentences.append(f"{name} is not a setting of BotOS. Hint: .env.example lists them all.")
        return sentences

    def outdated(self) -> str:
        """A sentence about the old names that gave values, to be asked for when all settings are read; or nothing."""
        known = self._known()
        renamed = ", ".join(f"{old} is now {new}" for old, new in sorted(self._read.items()) if old in known)
        hint = "rename them: the next release ignores the old names."
        return f"Settings have new names: {renamed}. Hint: {hint}" if renamed else ""

    def _known(self) -> dict[str, str]:
        """Every name that may be written, old ones too, with its name of today."""
        today = self.asked | {f"{name}_FILE" for name in self.secret_names} | ELSEWHERE
        return {name: name for name in today} | {old: new for old, new in self._new_names.items() if new in today}

    def text(self, name: str, default: str = "") -> str:
        self.asked.add(name)
        return self._values.get(name, "").strip() or default

    def secret(self, name: str) -> str:
        """The value of NAME, or the content of the file that NAME_FILE names. Empty if neither is set."""
        self.secret_names.add(name)
        value, file = self.text(name), self._values.get(f"{name}_FILE", "").strip()
        if value and file:
            raise BadSetting("E003", f"Both {name} and {name}_FILE are set.", hint="keep one of them.")
        value = _read_secret(name, Path(file)) if file else value
        self._hide(value)
        return value

    def _hide(self, value: str) -> None:
        self.secrets |= {value, *masking.parts(value)} - {""}

    def secret_words(self, name: str) -> list[str]:
        """A list like `words`, each of them a secret, from NAME or the file that NAME_FILE names."""
        values = self.secret(name).replace(",", " ").split()
        for value in values:
            self._hide(value)
        return values

    def choice(self, name: str, default: str, allowed: str) -> str:
        """One of the `allowed` words, whatever its case in the variable."""
        value = self.text(name, default).lower()
        if value not in allowed.split():
            words = ", ".join(allowed.split())
            raise BadSetting("E005", f"{name} is not one of {words}.", hint=f"write {name}={default}.")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        value = self.choice(name, str(default).lower(), "true false 1 0 yes no on off")
        return value in {"true", "1", "yes", "on"}

    def integer(self, name: str, default: int, *, or_zero: bool = False, hint: str = "") -> int:
        """A whole number from 1, or with `or_zero` from 0, to 999,999,999."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"0*[0-9]{1,9}" if or_zero else r"0*[1-9][0-9]{0,8}", value):
            problem = f"{name} is not a whole number {'from' if or_zero else 'above'} 0."
            raise BadSetting("E005", problem, hint=f"write {name}={default}{hint}.")
        return int(value)

    def count(self, name: str, default: int) -> int:
        """A whole number from 0 to 99."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,2}", value):
            raise BadSetting("E005", f"{name} is not a whole number from 0.", hint=f"write {name}={default}.")
        return int(value)

    def days(self, name: str, default: int) -> int:
        """A whole number of days from 0 to 99,999."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"[0-9]{1,5}", value):
            raise BadSetting("E005", f"{name} is not a whole number of days.", hint=f"write {name}={default}.")
        return int(value)

    def seconds(self, name: str, default: float, *, zero: bool = False) -> float:
        """A duration in seconds: above 0, or with `zero` also 0."""
        try:
            value = float(self.text(name, str(default)))
        except ValueError:
            value = math.nan
        if not (0 < value < math.inf or (zero and value == 0)):
            what = "a number of seconds from 0" if zero else "a number of seconds above 0"
            raise BadSetting("E005", f"{name} is not {what}.", hint=f"write {name}={default:g}.")
        return value

    def words(self, name: str, default: str = "") -> list[str]:
        """A list, separated by commas or spaces."""
        return self.text(name, default).replace(",", " ").split()

    def hosts(self, name: str, default: str) -> list[str]:
        """Host names as Django's ALLOWED_HOSTS has them."""
        found = self.words(name, default)
        if not all(re.fullmatch(r"\*|\.?[\w-]+(\.[\w-]+)*|\[[0-9A-Fa-f:.]+\]", host) for host in found):
            hint = f"write only host names, without https:// or a port, as in {name}=bots.example.org."
            raise BadSetting("E019", f"{name} contains something that is not a host name.", hint=hint)
        return found

    def listening(self, name: str, default: str) -> str:
        """HOST:PORT, :PORT or PORT."""
        value = self.text(name, default)
        port = value.rpartition(":")[2]
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
            raise BadSetting("E020", f"{name} is not HOST:PORT.", hint=f"write {name}={default}.")
        return value

    def address(self, name: str, *, scheme: str = "http", example: str = "") -> str:
        """A URL of the scheme, or of its variant with TLS, or nothing. A password in it is a secret."""
        value = self.text(name)
        if value and not is_address(value, {scheme, f"{scheme}s"}):
            hint = f"write {name}={example or f'{scheme}s://host/path'}."
            raise BadSetting(
                "E008", f"{name} is not an address that begins with {scheme}s:// or {scheme}://.", hint=hint
            )
        self.secrets |= masking.parts(value)
        return value


def is_address(value: str, schemes: set[str]) -> bool:
    """Whether it is a URL with a host and one of the schemes."""
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, an open bracket
        return False


def _read_secret(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError):  # not chained: the error's own text may quote the content
        problem = f"{name}_FILE names a file that cannot be read: {path}."
        raise BadSetting("E004", problem, hint="check the path and its permissions.") from None
