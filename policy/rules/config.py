"""The config is content too (S11): what differs from the parent's must be approved, or be allowed at the level.

Approved layers under another entrypoint, environment or user are another program. So each field that steers the
process is compared with the parent's, as its approval recorded it; an approval that names this very config covers
all of them, and else the level says which may differ. An environment variable may only differ if its name is
allowed and not denied; the user may only become one that is not root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ocispec.digest import Digest
from policy.approvals import Refusal
from policy.globs import any_of
from policy.hierarchy import Standing
from policy.settings import ConfigField, Level, spell_quorums
from policy.statements import ConfigFacts, ResolvedUser


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field, or one variable of `env`, that is not as in the parent; None where one side has none."""

    field: ConfigField
    variable: str
    value: str | None
    parent: str | None

    def __str__(self) -> str:
        return f"{self.field} {self.variable}" if self.variable else str(self.field)


def differences(facts: ConfigFacts, parent: ConfigFacts) -> Iterator[Difference]:
    """Every steering field of `facts` that is not as in `parent`."""
    yield from _env(facts.env, parent.env)
    pairs: tuple[tuple[ConfigField, object, object], ...] = (
        (ConfigField.ENTRYPOINT, facts.entrypoint, parent.entrypoint),
        (ConfigField.CMD, facts.cmd, parent.cmd),
        (ConfigField.USER, facts.user, parent.user),
        (ConfigField.WORKING_DIR, facts.working_dir, parent.working_dir),
        (ConfigField.VOLUMES, tuple(sorted(facts.volumes)), tuple(sorted(parent.volumes))),
        (ConfigField.STOP_SIGNAL, facts.stop_signal, parent.stop_signal),
    )
    for field, value, before in pairs:
        if value != before:
            yield Difference(field=field, variable="", value=_spell(value), parent=_spell(before))


def _env(entries: tuple[str, ...], before: tuple[str, ...]) -> Iterator[Difference]:
    here, there = _variables(entries), _variables(before)
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            yield Difference(field=ConfigField.ENV, variable=name, value=here.get(name), parent=there.get(name))


def _variables(entries: tuple[str, ...]) -> dict[str, str]:
    """Each variable's value; of two with one name, both: getenv takes the first, shells the last."""
    found: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        found[name] = f"{found[name]}\0{value}" if name in found else value
    return found


def config_refusals(
    standing: Standing, facts: ConfigFacts, user: ResolvedUser | None, config: Digest
) -> Iterable[Refusal]:
    """Every difference that nobody approved and that the level does not allow."""
    level, parent = standing.level, standing.parent
    if level is None or standing.config_approved:
        return
    before = parent.config_facts if parent is not None else ConfigFacts()
    allowed, denied = any_of(level.config.env_allow), any_of(level.config.env_deny)
    becomes_root = user is None or user.uid == 0 or _names_root(facts.user)
    for difference in differences(facts, before):
        reason = _objection(difference, level, allowed, denied, becomes_root=becomes_root)
        if not reason:
            continue
        shown = _shown(difference.value)
        was = (
            f"the parent {parent.manifest} has {_shown(difference.parent)}"
            if parent is not None
            else "there is no parent"
        )
        yield Refusal(
            reason="config-not-approved",
            subject=f"config {difference}",
            message=f"{difference} is {shown}; {was}; {reason}",
            fix=f"leave it as it is, or have the config {config} approved for {level.name} "
            f"by {spell_quorums(level.approval.image)}",
        )


def _objection(
    difference: Difference,
    level: Level,
    allowed: Callable[[str], bool],
    denied: Callable[[str], bool],
    *,
    becomes_root: bool,
) -> str:
    """Why the level does not allow the difference, "" if it does; `allowed` and `denied` decide variables."""
    if difference.field not in level.config.may_change:
        return f"level {level.name} does not let {difference.field} differ without an approval of the config"
    if difference.field is ConfigField.ENV:
        if denied(difference.variable):
            return f"level {level.name} denies this variable"
        if not allowed(difference.variable):
            return f"level {level.name} does not allow this variable"
    if difference.field is ConfigField.USER and becomes_root:
        return f"level {level.name} lets the user differ, but not become root"
    return ""


def _names_root(user: str) -> bool:
    name = user.partition(":")[0]
    return name in {"", "root"} or (name.isascii() and name.isdigit() and int(name) == 0)


def _spell(value: object) -> str | None:
    if not value:
        return None
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= 200 else f"{value[:200]}…"


DANGEROUS_VARIABLES = (
    # The dynamic linker and the C library (ld.so(8), environ(7), gconv, locale and resolver look-ups).
    *("LD_*", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH", "MALLOC_*", "HOSTALIASES", "LOCALDOMAIN"),
    *("RES_OPTIONS", "RESOLV_HOST_CONF", "TZDIR", "GETCONF_DIR"),
    # Where programs are looked for, and what shells read before the first line of a script.
    *("PATH", "IFS", "ENV", "BASH_ENV", "BASH_FUNC_*", "BASHOPTS", "SHELLOPTS", "PS4", "PROMPT_COMMAND", "SHELL"),
    *("ZDOTDIR", "FPATH", "HOME", "TERMINFO", "TERMINFO_DIRS", "PAGER", "EDITOR", "VISUAL", "BROWSER"),
    # Interpreters: where they find code, and what they run first.
    *("PYTHON*", "PERL*", "RUBY*", "GEM_*", "BUNDLE_*", "NODE_*", "NPM_CONFIG_*", "npm_config_*", "DENO_*", "BUN_*"),
    *("PHP*", "LUA_*", "TCL*", "R_*", "GUILE_*", "ERL_*", "ELIXIR_*", "JULIA_*", "CLASSPATH", "JAVA_*", "_JAVA_*"),
    *("JDK_*", "JVM_*", "CATALINA_*", "MAVEN_*", "GRADLE_*", "DOTNET_*", "CORECLR_*", "COMPlus_*", "MONO_*"),
    *("GODEBUG", "GOFLAGS", "GOPATH", "GOROOT", "GOTRACEBACK", "RUST_*", "AWKPATH", "AWKLIBPATH"),
    # Libraries that load what a variable names.
    *("OPENSSL_*", "SSL_*", "GIT_*", "GTK_*", "GIO_*", "QT_*", "GST_*", "KRB5*", "SASL_*", "LIBGL_*", "VK_*", "OCL_*"),
    *("DYLD_*", "CURL_*", "REQUESTS_CA_BUNDLE", "SUDO_*", "TMPDIR"),
)
"""The variables that choose code, not data: denied to a level's config unless its `env_deny` says otherwise."""
