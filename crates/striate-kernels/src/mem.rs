//! Aligned, zeroed buffers, and a helper for threads that write disjoint parts of one slice.
//!
//! Every buffer starts on 64 bytes. From 2 MiB up it starts on 2 MiB and asks the system for huge pages, which is worth 10 %
//! and more to kernels that stream weights.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

/// Alignment of every buffer, in bytes: a cache line, and an AVX-512 vector.
pub const ALIGN: usize = 64;
/// Size of a huge page, and the size from which buffers are aligned to it.
pub const HUGE: usize = 2 << 20;

/// The system has no memory for a buffer of this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Size that was asked for, in bytes; `usize::MAX` where it does not even fit the address space.
    pub bytes: usize,
}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot allocate {} bytes ({:.1} MiB)", self.bytes, self.bytes as f64 / (1 << 20) as f64)
    }
}

impl std::error::Error for OutOfMemory {}

/// Zeroed bytes on an aligned address.
pub struct AlignedBytes {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer is owned memory without interior mutability.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// A buffer of `len` zero bytes. Large ones cost no memory until they are touched.
    ///
    /// Ends the program where the system has no memory, as `Vec` does; see [`AlignedBytes::try_zeroed`].
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|_| handle_alloc_error(Layout::new::<u8>()))
    }

    /// A buffer of `len` zero bytes.
    ///
    /// # Errors
    /// The system has no memory.
    pub fn try_zeroed(len: usize) -> Result<Self, OutOfMemory> {
        if len == 0 {
            return Ok(AlignedBytes { ptr: dangling(), len });
        }
        let ptr = allocate(len).ok_or(OutOfMemory { bytes: len })?;
        Ok(AlignedBytes { ptr, len })
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated by `allocate(len)`, freed once.
            unsafe { release(self.ptr, self.len) };
        }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: len initialised bytes owned by self.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: len initialised bytes owned by self.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl std::fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

/// Zeroed floats on an aligned address; derefs to a slice.
#[derive(Clone, Debug)]
pub struct AlignedBuf {
    bytes: AlignedBytes,
}

impl AlignedBuf {
    /// A buffer of `len` zeros. Ends the program where the system has no memory, as `Vec` does.
    pub fn zeroed(len: usize) -> Self {
        Self::try_zeroed(len).unwrap_or_else(|_| handle_alloc_error(Layout::new::<f32>()))
    }

    /// A buffer of `len` zeros.
    ///
    /// # Errors
    /// The system has no memory.
    pub fn try_zeroed(len: usize) -> Result<Self, OutOfMemory> {
        let bytes = len.checked_mul(4).ok_or(OutOfMemory { bytes: usize::MAX })?;
        Ok(AlignedBuf { bytes: AlignedBytes::try_zeroed(bytes)? })
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[f32]) -> Self {
        let mut buf = Self::zeroed(values.len());
        buf.copy_from_slice(values);
        buf
    }
}

impl From<Vec<f32>> for AlignedBuf {
    /// Copies, because a vector's address is not aligned.
    fn from(values: Vec<f32>) -> Self {
        Self::from_slice(&values)
    }
}

impl Deref for AlignedBuf {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: the bytes are aligned to 64, initialised, and any bits are a float.
        unsafe { std::slice::from_raw_parts(self.bytes.ptr.as_ptr().cast(), self.bytes.len / 4) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and self is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.ptr.as_ptr().cast(), self.bytes.len / 4) }
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

fn dangling() -> NonNull<u8> {
    NonNull::without_provenance(std::num::NonZero::new(ALIGN).expect("ALIGN is not 0"))
}

fn small_layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len, ALIGN).ok()
}

#[cfg(target_os = "linux")]
fn allocate(len: usize) -> Option<NonNull<u8>> {
    if len >= HUGE {
        return map_huge(len);
    }
    // SAFETY: len is not 0.
    NonNull::new(unsafe { alloc_zeroed(small_layout(len)?) })
}

#[cfg(target_os = "linux")]
unsafe fn release(ptr: NonNull<u8>, len: usize) {
    if len >= HUGE {
        // SAFETY: mapped by `map_huge(len)`, which keeps exactly this range.
        unsafe { libc::munmap(ptr.as_ptr().cast(), len.next_multiple_of(HUGE)) };
    } else if let Some(layout) = small_layout(len) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(ptr.as_ptr(), layout) };
    }
}

/// Maps `len` bytes, rounded up to whole huge pages, on a 2 MiB boundary.
#[cfg(target_os = "linux")]
pub(crate) fn map_huge(len: usize) -> Option<NonNull<u8>> {
    let size = len.checked_next_multiple_of(HUGE)?;
    let mapped = size.checked_add(HUGE)?;
    // SAFETY: a fresh anonymous mapping; the unaligned head and the tail are given back, and no one else knows them.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let base = libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return None;
        }
        let base = base.cast::<u8>();
        let head = base.align_offset(HUGE);
        if head > 0 {
            libc::munmap(base.cast(), head);
        }
        let start = base.add(head);
        if HUGE > head {
            libc::munmap(start.add(size).cast(), HUGE - head);
        }
        // Advice alone: where huge pages are off, the mapping is as good as any.
        libc::madvise(start.cast(), size, libc::MADV_HUGEPAGE);
        NonNull::new(start)
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(len: usize) -> Option<NonNull<u8>> {
    // SAFETY: len is not 0.
    NonNull::new(unsafe { alloc_zeroed(small_layout(len)?) })
}

#[cfg(not(target_os = "linux"))]
unsafe fn release(ptr: NonNull<u8>, len: usize) {
    if let Some(layout) = small_layout(len) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(ptr.as_ptr(), layout) };
    }
}

/// A mutable slice that several threads may write, each its own part.
///
/// ```
/// use striate_kernels::{mem::DisjointMut, threads::Team};
/// let mut data = vec![0usize; 10];
/// let parts = DisjointMut::new(&mut data);
/// Team::new(2).for_each(10, |i| {
///     // SAFETY: each index is one task's own.
///     unsafe { parts.slice_mut(i..i + 1)[0] = i };
/// });
/// assert_eq!(data, (0..10).collect::<Vec<_>>());
/// ```
#[derive(Clone, Copy)]
pub struct DisjointMut<'a, T> {
    ptr: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out `&mut T` to any thread, which `T: Send` allows; disjointness is the caller's part.
unsafe impl<T: Send> Send for DisjointMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for DisjointMut<'_, T> {}

impl<'a, T> DisjointMut<'a, T> {
    /// Borrows `slice` for as long as the parts are in use.
    pub fn new(slice: &'a mut [T]) -> Self {
        DisjointMut { ptr: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True where there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first element's address, for kernels that write scattered elements.
    pub fn as_mut_ptr(&self) -> *mut T {
        self.ptr
    }

    /// The elements of `range`. Panics where it does not lie within the slice.
    ///
    /// # Safety
    /// While the result lives, no other slice or access from this value may touch an element of `range`.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "range {range:?} of a slice of {}", self.len);
        // SAFETY: within the slice; exclusive by contract.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zero() {
        for len in [0usize, 1, 15, 16, 1000, HUGE / 4 - 1, HUGE / 4, HUGE / 4 + 1, 3 * HUGE / 4] {
            let mut buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.len(), len);
            let align = if len * 4 >= HUGE && cfg!(target_os = "linux") { HUGE } else { ALIGN };
            assert_eq!(buf.as_ptr() as usize % align, 0, "{len}");
            assert!(buf.iter().all(|&x| x == 0.0));
            buf.fill(1.0);
            assert_eq!(buf.clone().iter().sum::<f32>(), len as f32);
        }
        assert_eq!(&AlignedBuf::from_slice(&[1.0, 2.0])[..], &[1.0, 2.0]);
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(AlignedBuf::try_zeroed(usize::MAX / 2).is_err());
        assert!(AlignedBytes::try_zeroed(1 << 60).is_err());
    }
}
