//! The heap of a program that reads and makes large blocks: on huge pages.
//!
//! A block's first touch costs a page fault for every 4 KiB, more time than it takes to copy a model from its file; with huge pages
//! it is one for every 2 MiB.

#[cfg(target_os = "linux")]
use crate::mem::{HUGE, map_huge};
#[cfg(target_os = "linux")]
use std::alloc::{GlobalAlloc, Layout, System};
#[cfg(target_os = "linux")]
use std::ptr::NonNull;

/// An allocator for a program: the system's, but blocks of at least [`HUGE`] bytes have mappings of their own, on huge pages.
///
/// ```
/// use striate_kernels::{heap::HugePages, mem::HUGE};
///
/// #[global_allocator]
/// static ALLOCATOR: HugePages = HugePages;
///
/// let large = vec![1u8; 3 << 20];
/// assert_eq!(large.as_ptr() as usize % HUGE, 0);
/// ```
#[cfg(target_os = "linux")]
pub struct HugePages;

/// Whether a block has its own mapping.
#[cfg(target_os = "linux")]
fn is_mapped(layout: Layout) -> bool {
    layout.size() >= HUGE && layout.align() <= HUGE
}

/// Bytes of a block's mapping.
#[cfg(target_os = "linux")]
fn mapped_len(layout: Layout) -> usize {
    layout.size().next_multiple_of(HUGE)
}

// SAFETY: where a block lies, is decided by its layout alone, which is the same when it is allocated and freed; the rest is the
// system's.
#[cfg(target_os = "linux")]
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match is_mapped(layout) {
            true => map_huge(layout.size()).map_or(std::ptr::null_mut(), NonNull::as_ptr),
            // SAFETY: by contract.
            false => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match is_mapped(layout) {
            // SAFETY: by contract; fresh mappings are zeros.
            true => unsafe { self.alloc(layout) },
            // SAFETY: by contract.
            false => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by contract; the mapping has the size that `map_huge` gave it.
        unsafe {
            match is_mapped(layout) {
                true => drop(libc::munmap(block.cast(), mapped_len(layout))),
                false => System.dealloc(block, layout),
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by contract, as the new layout; both are the system's where neither has a mapping of its own.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            match (is_mapped(layout), is_mapped(new)) {
                (false, false) => return System.realloc(block, layout, size),
                (true, true) if mapped_len(layout) == mapped_len(new) => return block,
                _ => {}
            }
            let moved = self.alloc(new);
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// Has the heap, where blocks below [`HUGE`] lie, grow by 32 MiB, the first of them on huge pages: most arrays of a model are that
/// small. For the start of a program; does nothing where the C library is not glibc.
pub fn advise_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: settings of the allocator; the heap's end is only asked for; advice changes no contents.
    unsafe {
        const STEP: libc::c_int = 32 << 20;
        // To set one of them, ends the adaptation of all.
        libc::mallopt(libc::M_TOP_PAD, STEP);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * STEP);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 2 * HUGE as libc::c_int);
        let start = libc::sbrk(0).cast::<u8>();
        // More than is free: the heap grows. The compiler leaves out what is allocated for nothing.
        libc::free(std::hint::black_box(libc::malloc(HUGE / 4)));
        let first = start.wrapping_add(start.align_offset(HUGE));
        let length = (libc::sbrk(0) as usize).saturating_sub(first as usize);
        libc::madvise(first.cast(), length, libc::MADV_HUGEPAGE);
    }
}
