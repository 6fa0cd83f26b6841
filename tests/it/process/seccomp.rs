//! What tests of systems that refuse something share: a filter that makes chosen system calls fail, in this process and all
//! that it starts. It needs no privilege.

#![allow(unsafe_code)]

use std::io;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use libc::{c_int, c_long, sock_filter, sock_fprog};

/// A system call that is refused: always, or if one of its arguments has these bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) call: c_long,
    /// Which argument, which of its bits are looked at, and what they are then.
    pub(super) only: Option<(u32, u32, u32)>,
    pub(super) error: c_int,
}

impl Refusal {
    pub(super) fn of(call: c_long, error: c_int) -> Self {
        Self { call, only: None, error }
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on with the next statement if what was loaded is `k`, and skips `miss` of them otherwise.
fn unless_equal(k: u32, miss: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt: 0, jf: miss, k }
}

/// Loads a word of what the kernel shows: the number of the call, or the lower half of an argument.
fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

/// From now on. An error if the system has no such filters.
pub(super) fn refuse(refusals: &[Refusal]) -> io::Result<()> {
    const FIRST_ARGUMENT: u32 = 16;
    let mut program = Vec::new();
    for Refusal { call, only, error } in refusals {
        let refused = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | *error as u32);
        program.push(load(0));
        match only {
            None => program.extend([unless_equal(*call as u32, 1), refused]),
            Some((argument, mask, value)) => program.extend([
                unless_equal(*call as u32, 4),
                load(FIRST_ARGUMENT + 8 * argument),
                statement(BPF_ALU | BPF_AND | BPF_K, *mask),
                unless_equal(*value, 1),
                refused,
            ]),
        }
    }
    program.push(statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW));
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is one of the kernel's language, and is copied.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC;
        match libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, all_threads, &filter) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
