//! The running executable: where it is loaded, and which build it is.
//!
//! What the unsafe code relies on:
//! - The dynamic loader, or the C library of a static program, describes the executable truthfully and lists it first. All C
//!   libraries for Linux do: `dl_iterate_phdr` exists for unwinding, which relies on its answers.
//! - The executable is never unloaded or moved, so what was read once stays valid, and its loaded segments can be read until
//!   the process ends.
#![allow(unsafe_code)]

use std::ffi::{OsStr, c_int, c_void};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::OnceLock;

use crate::fork::PerProcess;

#[cfg(target_pointer_width = "64")]
type ProgramHeader = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
type ProgramHeader = libc::Elf32_Phdr;

/// The type of the note that a linker writes with `--build-id`; its owner is `GNU`.
const NT_GNU_BUILD_ID: u32 = 3;

/// The main executable of this process. Shared libraries are not covered.
pub(crate) struct Image {
    /// The difference between addresses in memory and in the file.
    base: usize,
    headers: &'static [ProgramHeader],
    id: OnceLock<BuildId>,
}

/// The executable that this process runs. If this crate is linked into a shared library, the executable is a different program.
#[inline]
pub(crate) fn executable() -> &'static Image {
    static EXECUTABLE: PerProcess<Image> = PerProcess::new();
    EXECUTABLE.get_or_make(Image::find)
}

/// Was the program started with more rights than its caller has? Then its environment cannot be trusted.
pub(crate) fn is_secure() -> bool {
    // SAFETY: reads a word that the kernel gave the process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The path to execute for another process of this program: the running file itself, even if it has been replaced or deleted on
/// disk.
pub(crate) fn file() -> &'static Path {
    static FILE: PerProcess<PathBuf> = PerProcess::new();
    FILE.get_or_make(|| {
        let running = Path::new("/proc/self/exe");
        // If another program (valgrind, or the dynamic loader called by name) has loaded this one into its own process, this
        // path is that of the other program. The file that this code is mapped from is the right one.
        let here: fn() -> &'static Path = file;
        let is_other = |path: &PathBuf| {
            let id = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
            id(path).is_some_and(|mapped| id(running).is_some_and(|running| running != mapped))
        };
        let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
        mapped_at(&maps, here as usize).filter(is_other).unwrap_or_else(|| running.to_owned())
    })
}

/// The path of the file that is mapped at that address.
fn mapped_at(maps: &[u8], address: usize) -> Option<PathBuf> {
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let (start, rest) = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(rest, 16).ok()?;
        let path = line.iter().position(|byte| *byte == b'/').filter(|_| range.contains(&address))?;
        Some(PathBuf::from(OsStr::from_bytes(&line[path..])))
    })
}

impl Image {
    fn find() -> Image {
        unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _: usize, image: *mut c_void) -> c_int {
            // SAFETY: the caller passes its `Image` and a description that is valid during the call; the headers that it points
            // to are part of the executable, which is never unloaded.
            unsafe {
                let image = &mut *image.cast::<Image>();
                let info = &*info;
                if !info.dlpi_phdr.is_null() {
                    image.base = info.dlpi_addr as usize;
                    image.headers = slice::from_raw_parts(info.dlpi_phdr.cast(), info.dlpi_phnum.into());
                }
            }
            1 // Enough.
        }
        let mut image = Image { base: 0, headers: &[], id: OnceLock::new() };
        // SAFETY: `first` is called during this call only, with the pointer to `image`.
        unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut image).cast()) };
        image
    }

    /// The offset of `code` in the executable, which does not depend on the load address.
    pub(crate) fn offset_of(&self, code: usize) -> Option<u64> {
        self.is_code(code).then(|| code.wrapping_sub(self.base) as u64)
    }

    /// The address of what is at `offset`, if that is code.
    pub(crate) fn address_of(&self, offset: u64) -> Option<usize> {
        let code = self.base.wrapping_add(usize::try_from(offset).ok()?);
        self.is_code(code).then_some(code)
    }

    fn is_code(&self, address: usize) -> bool {
        self.loaded().any(|header| header.p_flags & libc::PF_X != 0 && self.extent(header).contains(&address))
    }

    /// The headers of the segments that were loaded from the file.
    fn loaded(&self) -> impl Iterator<Item = &'static ProgramHeader> {
        self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD)
    }

    fn extent(&self, header: &ProgramHeader) -> Range<usize> {
        let start = self.base.wrapping_add(header.p_vaddr as usize);
        start..start.saturating_add(header.p_memsz as usize)
    }

    /// Two processes with the same build id have the same functions at the same offsets.
    pub(crate) fn build_id(&self) -> BuildId {
        *self.id.get_or_init(|| {
            let mut id = match self.note() {
                Some(note) => {
                    let mut id = [1; 32];
                    let length = note.len().min(31);
                    id[1..].fill(0);
                    id[1..=length].copy_from_slice(&note[..length]);
                    id
                }
                None => {
                    let mut id = [0; 32];
                    id[0] = 2;
                    id[8..16].copy_from_slice(&self.hash_file().to_le_bytes());
                    id
                }
            };
            // The linker can be told to write the same note for every build; the layout then still differs.
            for (byte, more) in id[24..].iter_mut().zip(self.hash_layout().to_le_bytes()) {
                *byte ^= more;
            }
            BuildId(id)
        })
    }

    /// The note with the build id, if the linker wrote one.
    fn note(&self) -> Option<&'static [u8]> {
        self.headers.iter().filter(|header| header.p_type == libc::PT_NOTE).find_map(|header| {
            let extent = self.extent(header);
            let is_loaded = self
                .loaded()
                .map(|header| self.extent(header))
                .any(|loaded| loaded.contains(&extent.start) && extent.end <= loaded.end);
            // SAFETY: the range is part of a loaded segment; notes are not written to.
            let notes = is_loaded.then(|| unsafe {
                slice::from_raw_parts(std::ptr::with_exposed_provenance(extent.start), extent.len())
            });
            find_build_id(notes?, if header.p_align == 8 { 8 } else { 4 })
        })
    }

    /// A hash of the loaded segments, and so without debug information. They are read from the file, because in memory a
    /// debugger's breakpoints would change them. Zero if the file cannot be read; then only the layout counts.
    fn hash_file(&self) -> u64 {
        let Ok(file) = File::open("/proc/self/exe") else { return 0 };
        let mut buffer = vec![0; 1 << 18];
        let mut hash = Hash::new();
        for header in self.loaded() {
            let (mut at, mut left) = (header.p_offset as usize, header.p_filesz as usize);
            while left > 0 {
                let part = &mut buffer[..left.min(1 << 18)];
                if file.read_exact_at(part, at as u64).is_err() {
                    return 0;
                }
                hash.add(part);
                at += part.len();
                left -= part.len();
            }
        }
        hash.end()
    }

    /// A hash of the program headers and of this crate's version: different versions are not compatible.
    fn hash_layout(&self) -> u64 {
        let mut hash = Hash::new();
        // SAFETY: headers are plain integers without padding.
        hash.add(unsafe { slice::from_raw_parts(self.headers.as_ptr().cast(), size_of_val(self.headers)) });
        hash.add(env!("CARGO_PKG_VERSION").as_bytes());
        hash.end()
    }
}

/// Finds the build id among notes: each is three words (lengths of name and content, type), the name, the content.
fn find_build_id(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    loop {
        let word = |n: usize| Some(u32::from_ne_bytes(notes.get(4 * n..4 * n + 4)?.try_into().ok()?));
        let (name, content, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
        let content_at = 12usize.checked_add(name)?.checked_next_multiple_of(align)?;
        let end = content_at.checked_add(content)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..12 + name) == Some(b"GNU\0") && content > 0 {
            return notes.get(content_at..end);
        }
        notes = notes.get(end.checked_next_multiple_of(align)?..)?;
    }
}

/// A fast, non-cryptographic hash: four independent lanes, so that multiplications overlap.
struct Hash {
    lanes: [u64; 4],
    length: u64,
}

impl Hash {
    fn new() -> Hash {
        Hash {
            lanes: [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89],
            length: 0,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.length = self.length.wrapping_mul(31).wrapping_add(bytes.len() as u64);
        for block in bytes.chunks(32) {
            let mut padded = [0; 32];
            padded[..block.len()].copy_from_slice(block);
            for (lane, word) in self.lanes.iter_mut().zip(padded.chunks_exact(8)) {
                *lane = mix(*lane, u64::from_le_bytes(word.try_into().expect("eight bytes")));
            }
        }
    }

    fn end(self) -> u64 {
        self.lanes.into_iter().fold(self.length, mix)
    }
}

/// Combines both halves of a product, so that every bit of the input affects low and high bits, and the word itself, because a
/// product can be zero.
#[inline]
fn mix(lane: u64, word: u64) -> u64 {
    let product = u128::from(lane ^ word) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ ((product >> 64) as u64) ^ word.rotate_left(29)
}

/// Which build of an executable this is; see [`Image::build_id`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuildId(pub(crate) [u8; 32]);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add_one(n: u32) -> u32 {
        std::hint::black_box(n) + 1
    }

    #[test]
    fn a_function_of_the_executable_is_found_again() {
        let function: fn(u32) -> u32 = add_one;
        let offset = executable().offset_of(function as usize).expect("the function is in the executable");
        assert_eq!(executable().address_of(offset), Some(function as usize));
    }

    #[test]
    fn what_is_no_code_of_the_executable_has_no_offset() {
        static DATA: u32 = 1;
        let local = 1u32;
        let on_heap = Box::new(1u32);
        for data in [&raw const DATA, &raw const local, &raw const *on_heap] {
            assert_eq!(executable().offset_of(data.addr()), None);
        }
        assert_eq!(executable().offset_of(0), None);
        assert_eq!(executable().offset_of(usize::MAX), None);
    }

    #[cfg(not(target_feature = "crt-static"))]
    #[test]
    fn a_function_of_a_library_has_no_offset() {
        // SAFETY: looks up a name. The address in this code may be that of a stub, so it is taken from the symbol table.
        let getpid = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"getpid".as_ptr()) };
        assert!(!getpid.is_null());
        assert_eq!(executable().offset_of(getpid.addr()), None);
    }

    #[test]
    fn only_offsets_of_code_have_an_address() {
        assert_eq!(executable().address_of(u64::MAX), None);
        assert_eq!(executable().address_of(1 << 60), None);
        let end =
            executable().loaded().map(|header| header.p_vaddr + header.p_memsz).max().expect("something is loaded");
        assert_eq!(executable().address_of(end), None);
    }

    #[test]
    fn the_build_id_is_stable() {
        let id = executable().build_id();
        assert_ne!(id.0[1..], [0; 31]);
        assert_eq!(Image::find().build_id(), id);
        assert_eq!(id.to_string().len(), 64);
    }

    #[test]
    fn without_a_note_the_file_is_hashed() {
        let hash = executable().hash_file();
        assert_ne!(hash, 0);
        assert_eq!(Image::find().hash_file(), hash);
    }

    #[test]
    fn the_file_that_runs_is_the_one_that_is_mapped() {
        assert_eq!(file(), Path::new("/proc/self/exe"));
        let maps = std::fs::read("/proc/self/maps").expect("proc is mounted");
        let here: fn() -> &'static Path = file;
        let mapped = mapped_at(&maps, here as usize).expect("this code is mapped from a file");
        assert_eq!(mapped, std::env::current_exe().expect("there is one"));
        assert_eq!(mapped_at(&maps, (&raw const mapped).addr()), None, "the stack");
        let spaces = b"10-20 r--p 0 00:00 5      /a b/c\n20-30 r-xp 0 00:00 5      /a b/d\n";
        assert_eq!(mapped_at(spaces, 0x20), Some(PathBuf::from("/a b/d")));
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes() {
        let note = |name: &[u8], kind: u32, content: &[u8]| {
            let mut bytes = Vec::new();
            for word in [name.len() as u32, content.len() as u32, kind] {
                bytes.extend(word.to_ne_bytes());
            }
            for part in [name, content] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let other = note(b"GNU\0", 1, b"12345");
        let foreign = note(b"Go\0", NT_GNU_BUILD_ID, b"123");
        let wanted = note(b"GNU\0", NT_GNU_BUILD_ID, b"abcdefg");
        assert_eq!(find_build_id(&[&*other, &foreign, &wanted].concat(), 4), Some(&b"abcdefg"[..]));
        assert_eq!(find_build_id(&[&*other, &foreign].concat(), 4), None);
        assert_eq!(find_build_id(&wanted[..wanted.len() - 4], 4), None);
        assert_eq!(find_build_id(&[0xff; 40], 4), None);
    }

    #[test]
    fn every_bit_counts() {
        let hash = |bytes: &[u8]| {
            let mut hash = Hash::new();
            hash.add(bytes);
            hash.end()
        };
        let bytes = vec![0x5a; 1000];
        for bit in 0..8 * bytes.len() {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(hash(&bytes), hash(&other), "bit {bit}");
        }
        let mut swapped = bytes.clone();
        swapped[..32].fill(1);
        let mut again = bytes;
        again[32..64].fill(1);
        assert_ne!(hash(&swapped), hash(&again));
        assert_ne!(hash(b"a"), hash(b"a\0"));
    }
}
