//! The bytes of an argument or a result: a buffer that can become a vector of numbers without another copy.
//!
//! This module is an unsafe island. Its rule: the buffer was allocated by the global allocator with a layout of `capacity`
//! bytes and the alignment of its [`Element`], and its first `length` bytes are initialised.

#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// The size and alignment of the numbers in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element(Layout);

impl Element {
    /// Plain bytes.
    pub(super) const BYTE: Self = Self::of::<u8>();

    pub(super) const fn of<T>() -> Self {
        Self(Layout::new::<T>())
    }
}

#[derive(Debug)]
pub(super) struct Body {
    data: NonNull<u8>,
    /// The number of initialised bytes.
    length: usize,
    /// The number of allocated bytes: a multiple of the element's size.
    capacity: usize,
    element: Element,
    /// The descriptors received with the bytes.
    pub(super) attachments: Vec<OwnedFd>,
}

// SAFETY: it owns its bytes.
unsafe impl Send for Body {}
// SAFETY: through `&self` they can only be read.
unsafe impl Sync for Body {}

/// From this length on, huge pages are requested: faulting in small pages would cost more than copying the bytes.
const LARGE: usize = 4 << 20;

/// Requests huge pages, for kernels that use them only on request.
fn welcome_huge_pages(data: NonNull<u8>, length: usize) {
    use rustix::mm::{Advice, madvise};
    let page = rustix::param::page_size();
    let before = data.addr().get().wrapping_neg() % page;
    let whole = length.saturating_sub(before) / page * page;
    // SAFETY: the pages lie within the caller's buffer; this advice does not change what is in them.
    let _ = unsafe { madvise(data.add(before).as_ptr().cast(), whole, Advice::LinuxHugepage) };
}

impl Body {
    /// Room for `capacity` bytes; `None` if there is no memory for them.
    pub(super) fn with_capacity(element: Element, capacity: usize) -> Option<Self> {
        let capacity = capacity.checked_next_multiple_of(element.0.size())?;
        let data = match capacity {
            // The pointer of an empty buffer has to be aligned too.
            0 => NonNull::new(std::ptr::without_provenance_mut(element.0.align()))?,
            _ => {
                let layout = Layout::from_size_align(capacity, element.0.align()).ok()?;
                // SAFETY: the size is not 0.
                let data = NonNull::new(unsafe { alloc::alloc(layout) })?;
                if capacity >= LARGE {
                    welcome_huge_pages(data, capacity);
                }
                data
            }
        };
        Some(Self { data, length: 0, capacity, element, attachments: Vec::new() })
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        // SAFETY: the first `length` bytes are initialised.
        unsafe { NonNull::slice_from_raw_parts(self.data, self.length).as_ref() }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// How many more bytes fit.
    pub(super) fn room(&self) -> usize {
        self.capacity - self.length
    }

    /// The address of the next byte to write.
    pub(super) fn end(&self) -> NonNull<u8> {
        // SAFETY: within the buffer, or one past its end.
        unsafe { self.data.add(self.length) }
    }

    /// Appends bytes.
    ///
    /// # Panics
    ///
    /// If there is no room for them.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "a body has room for what it was made for");
        // SAFETY: there is room, and `bytes.len()` bytes are written.
        unsafe {
            self.end().copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
            self.advance(bytes.len());
        }
    }

    /// # Safety
    /// `by` bytes have been written at [`end`](Self::end).
    pub(super) unsafe fn advance(&mut self, by: usize) {
        debug_assert!(by <= self.room());
        self.length += by;
    }

    /// The numbers in it, if it was made for numbers of this type and has a whole number of them.
    ///
    /// # Safety
    /// Every bit pattern is a valid `T`.
    pub(super) unsafe fn into_vec<T>(mut self) -> Option<Vec<T>> {
        let size = size_of::<T>();
        if self.element != Element::of::<T>() || self.length % size != 0 {
            return None;
        }
        let (data, length, capacity) = (self.data, self.length / size, self.capacity / size);
        drop(std::mem::take(&mut self.attachments));
        std::mem::forget(self);
        // SAFETY: the module's rule; the caller's contract for the values.
        Some(unsafe { Vec::from_raw_parts(data.cast::<T>().as_ptr(), length, capacity) })
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.capacity != 0 {
            // SAFETY: the module's rule: this is the layout that `with_capacity` has checked.
            unsafe {
                let layout = Layout::from_size_align_unchecked(self.capacity, self.element.0.align());
                alloc::dealloc(self.data.as_ptr(), layout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_becomes_the_vector_it_was_made_for_and_no_other() {
        let mut body = Body::with_capacity(Element::of::<u32>(), 8).unwrap();
        // SAFETY: 8 bytes are written where there is room for 8; every bit pattern is a valid number.
        unsafe {
            body.end().cast::<u32>().write(7);
            body.end().cast::<u32>().add(1).write(8);
            body.advance(8);
            assert_eq!(body.into_vec::<u32>(), Some(vec![7, 8]));
            assert_eq!(Body::of::<u8>(&[1, 2, 3]).into_vec::<u8>(), Some(vec![1, 2, 3]));
            assert!(Body::of::<u8>(&[1, 2, 3, 4]).into_vec::<u32>().is_none());
            assert_eq!(Body::with_capacity(Element::of::<u64>(), 0).unwrap().into_vec::<u64>(), Some(vec![]));
        }
    }
}
