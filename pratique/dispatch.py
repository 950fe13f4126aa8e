"""Run one verb: parse its arguments, call it, and turn every error into one clear line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from pratique.exits import CommandError, Exit, UsageError
from pratique.output import clean


class Verb(Protocol):
    """What each file under `commands/` offers."""

    __doc__: str | None

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the verb's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the result is the exit code."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other error; the whole usage is in `--help`."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.prog.partition(' ')[2]}: {message}; `{self.prog} --help` lists what there is")


def run_verb(name: str, arguments: Sequence[str], *, debug: bool) -> int:
    """Run the verb `name` and return its exit code; errors become one line on stderr."""
    failed = Exit.NOT_STARTED if name == "run" else Exit.FAILED
    try:
        verb = verb_of(name)
        return verb.run(parser_for(name, verb).parse_args(arguments))
    except UsageError as error:
        return _fail(error, Exit.USAGE, debug=debug)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FINE
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except Exception as error:
        # A container's error knows what `run` ends with: 126 and 127 tell about its program (docker run has them).
        code = getattr(error, "exit_code", failed) if name == "run" else failed
        return _fail(error if _is_ours(error) else _defect(error), Exit(code), debug=debug)
    finally:
        # Looked up only if the verb imported it, like the errors below.
        if "pratique.control" in sys.modules:
            sys.modules["pratique.control"].close_all()


def verb_of(name: str) -> Verb:
    """The file of a verb, imported."""
    return cast("Verb", importlib.import_module(f"pratique.commands.{name}"))


def parser_for(name: str, verb: Verb) -> argparse.ArgumentParser:
    """The parser of a verb's arguments."""
    parser = _Parser(
        prog=f"pratique {name}", description=verb.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.configure(parser)
    return parser


def _is_ours(error: BaseException) -> bool:
    """True for an error whose message is meant for the user; anything else is a defect of ours."""
    from ocispec.errors import SpecError
    from policy.errors import PolicyError
    from scanner.errors import ScanError

    expected: tuple[type[BaseException], ...] = (CommandError, SpecError, ScanError, PolicyError, OSError)
    # The registry's and the runtime's errors are looked up only if they were imported: importing them here would
    # cost a command that never used them.
    for module, name in (("registry.errors", "RegistryError"), ("runtime.errors", "ContainerError")):
        if module in sys.modules:
            expected += (getattr(sys.modules[module], name),)
    return isinstance(error, expected)


def _defect(error: BaseException) -> BaseException:
    described = CommandError(f"internal error: {type(error).__name__}: {error} (pratique --debug shows where)")
    described.__cause__ = error
    return described


def _fail(error: BaseException, code: Exit, *, debug: bool) -> Exit:
    if debug:
        traceback.print_exception(error)
    # What mends it is the command line's to say, not the exception's message: one line still.
    repair = getattr(error, "repair", "")
    message = clean("; ".join(_text(error).splitlines()))
    print(f"pratique: {message}{f' (repair: {clean(repair)})' if repair else ''}", file=sys.stderr)
    return code


def _text(error: BaseException) -> str:
    """What the error says; the system's own with the object first, as ours have it."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)
