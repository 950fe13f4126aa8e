"""Data of the sandbox: seccomp profiles and system call numbers; README.md says where each comes from."""
