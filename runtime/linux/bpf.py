"""Classic BPF in small blocks (linux/bpf_common.h): each function returns instructions with relative jumps.

Blocks are built from the end: what comes after is known when a jump over it is written. A conditional jump
reaches 255 instructions; longer ways go through BPF_JA.
"""

from __future__ import annotations

from typing import Final

from runtime.linux import structs

Block = list[bytes]
"""Instructions, struct sock_filter each."""

MAX_INSTRUCTIONS: Final = 4096
"""BPF_MAXINSNS, linux/bpf_common.h."""
_LD, _JA, _JEQ, _JGT, _JGE, _RET, _AND = 0x20, 0x05, 0x15, 0x25, 0x35, 0x06, 0x54
_REACH: Final = 255


def _insn(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
    return structs.sock_filter.pack(code, true, false, k)


def load(offset: int) -> Block:
    """The 32-bit word at `offset` of the data into the accumulator."""
    return [_insn(_LD, offset)]


def ret(value: int) -> Block:
    """End with this value."""
    return [_insn(_RET, value)]


def if_equal(value: int, then: Block) -> Block:
    """Run `then`, which returns, if the accumulator is `value`; else go on behind it."""
    if len(then) <= _REACH:
        return [_insn(_JEQ, value, 0, len(then)), *then]
    return [_insn(_JEQ, value, 1, 0), _insn(_JA, len(then)), *then]


def at_least(value: int, above: Block, below: Block) -> Block:
    """Run `above` if the accumulator is `value` or more (unsigned), else `below`; `below` returns."""
    if len(below) <= _REACH:
        return [_insn(_JGE, value, len(below), 0), *below, *above]
    return [_insn(_JGE, value, 0, 1), _insn(_JA, len(below)), *below, *above]


def compare(offset: int, operator: str, value: int, value_two: int, then: Block) -> Block:
    """Go on with `then` if the 64-bit number at `offset` compares; else jump behind its end.

    `operator` is libseccomp's name. Numbers are little endian, so the high half lies at `offset` + 4. `then`
    has at most 250 instructions.
    """
    low, high, end = load(offset), load(offset + 4), len(then)
    lo, hi = value & 0xFFFFFFFF, value >> 32
    match operator:
        case "SCMP_CMP_EQ":
            return [*high, _insn(_JEQ, hi, 0, end + 2), *low, _insn(_JEQ, lo, 0, end), *then]
        case "SCMP_CMP_NE":
            return [*high, _insn(_JEQ, hi, 0, 2), *low, _insn(_JEQ, lo, end, 0), *then]
        case "SCMP_CMP_MASKED_EQ":
            want_lo, want_hi = value_two & 0xFFFFFFFF, value_two >> 32
            first = [*high, _insn(_AND, hi), _insn(_JEQ, want_hi, 0, end + 3)]
            return [*first, *low, _insn(_AND, lo), _insn(_JEQ, want_lo, 0, end), *then]
        case "SCMP_CMP_GT" | "SCMP_CMP_GE":
            last = _JGT if operator == "SCMP_CMP_GT" else _JGE
            first = [*high, _insn(_JGT, hi, 3, 0), _insn(_JEQ, hi, 0, end + 2)]
            return [*first, *low, _insn(last, lo, 0, end), *then]
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            last = _JGE if operator == "SCMP_CMP_LT" else _JGT
            first = [*high, _insn(_JGE, hi, 0, 3), _insn(_JEQ, hi, 0, end + 2)]
            return [*first, *low, _insn(last, lo, end, 0), *then]
    raise ValueError(f"comparison {operator!r} is unknown")
