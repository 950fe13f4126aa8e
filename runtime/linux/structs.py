"""Kernel structures under their C names in lower case, as formats of the struct module; each cites its header.

Native byte order and natural alignment are spelled out by hand (`=` packs without padding), so a format is
the same on every 64-bit machine. Pointers are unsigned 64-bit addresses.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

clone_args: Final = Struct("=11Q")
"""linux/sched.h: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
cgroup (CLONE_ARGS_SIZE_VER2)."""
open_how: Final = Struct("=3Q")
"""linux/openat2.h: flags, mode, resolve."""
mount_attr: Final = Struct("=4Q")
"""linux/mount.h: attr_set, attr_clr, propagation, userns_fd (MOUNT_ATTR_SIZE_VER0)."""
cap_header: Final = Struct("=Ii")
"""linux/capability.h: version, pid."""
cap_data: Final = Struct("=6I")
"""linux/capability.h, two of them: effective, permitted, inheritable of capabilities 0-31, then of 32-63."""
sock_fprog: Final = Struct("=H6xQ")
"""linux/filter.h: number of instructions, address of them."""
sock_filter: Final = Struct("=HBBI")
"""linux/filter.h: code, jt, jf, k."""
bpf_insn: Final = Struct("=BBhi")
"""linux/bpf.h: code, dst_reg in the low and src_reg in the high half of a byte, off, imm."""
loop_config: Final = Struct("=2I 5Q 4I 64s 64s 32s 2Q 64x")
"""linux/loop.h: fd, block_size, then struct loop_info64: lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit,
lo_number, lo_encrypt_type, lo_encrypt_key_size, lo_flags, lo_file_name, lo_crypt_name, lo_encrypt_key, lo_init."""
ifreq_flags: Final = Struct("=16sh22x")
"""linux/if.h, struct ifreq with ifr_flags: name, flags."""
bpf_prog_load: Final = Struct("=2I 2Q 2I Q 2I 16s 2I")
"""linux/bpf.h, union bpf_attr for BPF_PROG_LOAD: prog_type, insn_cnt, insns, license, log_level, log_size, log_buf,
kern_version, prog_flags, prog_name, prog_ifindex, expected_attach_type."""
bpf_prog_attach: Final = Struct("=5I")
"""linux/bpf.h, union bpf_attr for BPF_PROG_ATTACH: target_fd, attach_bpf_fd, attach_type, attach_flags,
replace_bpf_fd."""
