//! Memory that two processes share: a sealed memfd, parts of which are mapped twice consecutively, so that a ring buffer in it
//! never has to wrap.
//!
//! This module is an unsafe island. Its rules:
//! 1. The file has a fixed size: it is sealed against shrinking and growing before it is sent to another process, and the
//!    receiver checks that, so that an access within the mapping never faults.
//! 2. All pages are reserved when the file is made, so that a full system is an error then and not a SIGBUS later.
//! 3. The other process may change any byte at any time. So nothing here is ever a Rust reference, except atomics; bytes
//!    are copied, and what is copied is checked after the copy.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};
use rustix::process::{Resource, getrlimit};

use super::fd::above_standard;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Creates a file of `size` bytes, all zero.
pub(crate) fn create(size: usize) -> io::Result<OwnedFd> {
    let file = file()?;
    reserve(&file, size)?;
    fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

/// Creates an empty file.
fn file() -> io::Result<OwnedFd> {
    above_standard(fs::memfd_create("concurrent-futures", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

/// Does the system support such memory, and may files have that size?
pub(crate) fn is_available(size: usize) -> bool {
    is_allowed(size) && create(rustix::param::page_size()).is_ok()
}

/// May this process have files of that size (RLIMIT_FSIZE)?
fn is_allowed(size: usize) -> bool {
    getrlimit(Resource::Fsize).current.is_none_or(|limit| size as u64 <= limit)
}

/// Gives a new file its size and its pages.
fn reserve(file: &OwnedFd, size: usize) -> io::Result<()> {
    /// A signal interrupts the kernel and undoes the current piece, so a piece must be short enough to complete between two
    /// signals.
    const PIECE: usize = 64 * 1024;
    if !is_allowed(size) {
        // Trying it would end this process with SIGXFSZ.
        return Err(Errno::FBIG.into());
    }
    fs::ftruncate(file, size as u64)?;
    let mut at = 0;
    while at < size {
        let piece = PIECE.min(size - at);
        match fs::fallocate(file, FallocateFlags::empty(), at as u64, piece as u64) {
            Ok(()) => at += piece,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Part of a file, mapped for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    /// The length of the address range (twice that of the part of the file, if it is mapped twice).
    length: usize,
}

// SAFETY: a mapping is ordinary memory; its users are responsible for the accesses (rule 3).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes of the file from `offset` (both multiples of the page size).
    pub(crate) fn new(file: impl AsFd, offset: usize, size: usize) -> io::Result<Self> {
        Self::checked(file, offset, size, 1)
    }

    /// Maps `size` bytes of the file twice consecutively: byte `n` and byte `n + size` are the same.
    pub(crate) fn mirrored(file: impl AsFd, offset: usize, size: usize) -> io::Result<Self> {
        Self::checked(file, offset, size, 2)
    }

    fn checked(file: impl AsFd, offset: usize, size: usize, times: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let end = offset.checked_add(size).ok_or(io::ErrorKind::InvalidInput)?;
        let length = size.checked_mul(times).ok_or(io::ErrorKind::InvalidInput)?;
        if size == 0 || offset % page != 0 || size % page != 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Rule 1.
        let sealed = fs::fcntl_get_seals(&file)?.contains(SEALS);
        if !sealed || u64::try_from(fs::fstat(&file)?.st_size).unwrap_or(0) < end as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shared memory is not what it should be"));
        }
        // SAFETY: a fresh range at an address of the kernel's choice.
        let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let this = Self { base, length };
        for part in 0..times {
            // SAFETY: the target is within the range that was reserved above and is not used otherwise.
            unsafe {
                let target = base.as_ptr().add(part * size).cast::<c_void>();
                let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
                mm::mmap(target, size, prot, flags, &file, offset as u64)?;
            }
        }
        Ok(this)
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range belongs to this value, and borrows of it end before it is dropped.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// A file whose bytes can never change again, in any process, mapped for reading.
#[derive(Debug)]
pub(crate) struct Frozen {
    file: OwnedFd,
    /// `None` if there are no bytes.
    mapping: Option<Mapping>,
    length: usize,
}

const FROZEN: SealFlags = SEALS.union(SealFlags::WRITE);

impl Frozen {
    /// Creates `length` bytes, which `fill` may write once.
    pub(crate) fn new(length: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Self> {
        let file = file()?;
        if length > 0 {
            reserve(&file, length)?;
            let writable = map_once(&file, length, ProtFlags::READ | ProtFlags::WRITE)?;
            // SAFETY: the file is new, so it is mapped nowhere else; all of it is reserved and zero.
            fill(unsafe { NonNull::slice_from_raw_parts(writable.base, length).as_mut() });
        } else {
            fill(&mut []);
        }
        // The writable mapping has been unmapped, otherwise this would fail.
        fs::fcntl_add_seals(&file, FROZEN)?;
        Self::from_fd(file)
    }

    /// Maps a file of another process; an error if it may still change.
    pub(crate) fn from_fd(file: OwnedFd) -> io::Result<Self> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the shared memory is not what it should be");
        if !fs::fcntl_get_seals(&file)?.contains(FROZEN) {
            return Err(broken());
        }
        let length = usize::try_from(fs::fstat(&file)?.st_size).map_err(|_| broken())?;
        let mapping = match length {
            0 => None,
            _ => Some(map_once(&file, length, ProtFlags::READ)?),
        };
        Ok(Self { file, mapping, length })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.mapping {
            // SAFETY: mapped, of that length, and sealed against writing and shrinking: the bytes never change.
            Some(mapping) => unsafe { NonNull::slice_from_raw_parts(mapping.base, self.length).as_ref() },
            None => &[],
        }
    }
}

impl AsFd for Frozen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn map_once(file: &OwnedFd, length: usize, prot: ProtFlags) -> io::Result<Mapping> {
    // SAFETY: a fresh range at an address of the kernel's choice.
    let base = unsafe { mm::mmap(ptr::null_mut(), length, prot, MapFlags::SHARED, file, 0)? };
    Ok(Mapping { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_behind_the_end_is_at_the_beginning() {
        let page = rustix::param::page_size();
        let file = create(2 * page).unwrap();
        let ring = Mapping::mirrored(&file, page, page).unwrap();
        let plain = Mapping::new(&file, page, page).unwrap();
        // SAFETY: all three addresses lie within the mappings.
        unsafe {
            ring.base().as_ptr().add(page + 5).write(42);
            assert_eq!(ring.base().as_ptr().add(5).read(), 42);
            assert_eq!(plain.base().as_ptr().add(5).read(), 42);
        }
    }

    #[test]
    fn a_file_of_the_wrong_size_or_without_seals_is_refused() {
        let page = rustix::param::page_size();
        let file = create(page).unwrap();
        assert!(Mapping::new(&file, 0, 2 * page).is_err());
        assert!(Mapping::new(&file, 1, page).is_err());
        let unsealed = fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fs::ftruncate(&unsealed, page as u64).unwrap();
        assert!(Mapping::new(&unsealed, 0, page).is_err());
        assert!(fs::ftruncate(&file, 0).is_err());
    }
}
