"""The recipe of the container image, as far as it can be read; `make test-image` builds and runs it."""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from pathlib import Path
from typing import Final

from pratique.commands.serve import configure
from registry.settings import UserSettings, parse

ROOT: Final = Path(__file__).parents[2]
RECIPE: Final = ROOT / "deploy" / "Containerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction with the rest of its line, continued lines joined."""
    lines = [line for line in RECIPE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def test_what_is_copied_is_there_and_is_all_that_is_installed() -> None:
    copied = {word for rest in of("COPY") if not rest.startswith("--from") for word in rest.split()[:-1]}
    assert [name for name in copied if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= copied
    assert {project["project"]["readme"], *project["project"]["license-files"], "requirements.lock"} <= copied


def test_the_base_is_given_from_outside_and_no_host_is_named() -> None:
    assert of("FROM") == ["${BASE} AS build", "${BASE}"]
    assert of("ARG")[0] == "BASE"
    code = "\n".join(f"{name} {rest}" for name, rest in instructions())
    assert "://" not in code
    assert "curl" not in code
    assert "--require-hashes" in code


def test_it_does_not_run_as_root_and_owns_its_data() -> None:
    users = UserSettings()
    assert of("USER") == [f"{users.web}:{users.group}"]
    settings = parse((ROOT / "deploy" / "registry.yaml").read_bytes())
    assert of("VOLUME") == [str(settings.data)]
    assert any(rest.endswith(f"chown {users.web}:{users.group} {settings.data}") for rest in of("RUN"))
    assert of("EXPOSE") == [settings.http.listen.rpartition(":")[2]]


def test_what_it_starts_is_a_command_line_of_ours() -> None:
    (entry,), (arguments,) = of("ENTRYPOINT"), of("CMD")
    words = json.loads(entry) + json.loads(arguments)
    assert words[:4] == ["/usr/bin/catatonit", "--", "/opt/pratique/bin/pratique", "serve"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    configure(parser)
    assert parser.parse_args(words[4:]).config == Path("/etc/pratique/registry.yaml")
