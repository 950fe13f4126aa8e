"""Runs commands and shows them as a person at a terminal would see them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class DemoFailedError(Exception):
    """A command did not end as the demo expects; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command wrote, and its exit code."""

    code: int
    out: str


@dataclass(slots=True)
class Stage:
    """Where the demo runs: the folder that holds all it makes, and the environment of every command."""

    folder: Path
    environment: Mapping[str, str]
    started: float = field(default_factory=time.monotonic)
    number: int = 0

    def step(self, title: str) -> None:
        """Begin the next step."""
        self.number += 1
        self.say("")
        self.say(f"== {self.number:2}. {title}   [{time.monotonic() - self.started:.1f} s]")

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)

    def run(
        self, *command: str | Path, expect: int = 0, show: bool = True, quiet: bool = False, send: str | None = None
    ) -> Result:
        """Run `command`, show it and what it wrote, and return that.

        Raises:
            DemoFailedError: its exit code is not `expect`.
        """
        words = [str(word) for word in command]
        if show:
            self.say(f"$ {self._shown(words)}")
        done = subprocess.run(
            words,
            input=send,
            stdout=subprocess.PIPE,
            # What is shown is shown as a terminal would, both streams in their order; JSON is read from one alone.
            stderr=subprocess.DEVNULL if "--json" in words else subprocess.STDOUT,
            text=True,
            check=False,
            cwd=self.folder,
            env=dict(self.environment),
        )
        result = Result(done.returncode, done.stdout)
        if show and not quiet and result.out.strip():
            self.say("\n".join(f"    {line}" for line in result.out.rstrip().splitlines()))
        if result.code != expect:
            raise DemoFailedError(f"{self._shown(words)}: got exit code {result.code}, expected {expect}\n{result.out}")
        if show and expect:
            self.say(f"    (exit code {expect})")
        return result

    def pratique(self, *arguments: str | Path, **options: object) -> Result:
        """Run a verb of the `pratique` command."""
        return self.run(Path(sys.executable).with_name("pratique"), *arguments, **options)  # type: ignore[arg-type]  # run's own keywords, passed through

    def start(self, *command: str | Path, log: Path) -> subprocess.Popen[bytes]:
        """Start `command` in the background, its output to `log`."""
        self.say(f"$ {self._shown([str(word) for word in command])} &")
        with log.open("wb") as output:
            return subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=dict(self.environment),
                start_new_session=True,
            )

    def _shown(self, words: Sequence[str]) -> str:
        here = str(self.folder) + os.sep
        parts = [word.replace(here, "") for word in words]
        parts[0] = Path(parts[0]).name
        return " ".join(part if part and " " not in part else repr(part) for part in parts)
