//! The one buffer in which a program keeps its f32 values, and the only `unsafe` of this crate: handing out slices of it
//! that a step reads and writes at the same time.
#![allow(unsafe_code)]

use std::cell::Cell;
use striate_kernels::mem::AlignedBuf;

/// A range of the arena, in floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub(crate) struct Span {
    pub start: usize,
    pub len: usize,
}

impl Span {
    fn overlaps(&self, other: &Span) -> bool {
        self.start < other.start + other.len && other.start < self.start + self.len
    }
}

/// How many spans one step may hold at a time.
const MOST: usize = 64;

/// The arena of a session.
pub(crate) struct Arena {
    buffer: AlignedBuf,
}

/// What one step has borrowed from the arena so far. Each new borrow is checked against all earlier ones, so a defect of
/// the memory planner is a panic, never aliasing.
pub(crate) struct Borrows<'a> {
    base: *mut f32,
    len: usize,
    taken: [Cell<(Span, bool)>; MOST],
    count: Cell<usize>,
    arena: std::marker::PhantomData<&'a mut Arena>,
}

impl Arena {
    pub fn new(buffer: AlignedBuf) -> Self {
        Arena { buffer }
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Starts a step.
    pub fn borrows(&mut self) -> Borrows<'_> {
        let none = (Span::default(), false);
        Borrows {
            base: self.buffer.as_mut_ptr(),
            len: self.buffer.len(),
            taken: [const { Cell::new((Span { start: 0, len: 0 }, false)) }; MOST].map(|c| {
                c.set(none);
                c
            }),
            count: Cell::new(0),
            arena: std::marker::PhantomData,
        }
    }
}

impl<'a> Borrows<'a> {
    /// A span to read. It may overlap others that are read, none that is written.
    pub fn read(&self, span: Span) -> &'a [f32] {
        self.take(span, false);
        // SAFETY: inside the buffer, which is borrowed mutably for 'a; `take` has checked that no part of it is written.
        unsafe { std::slice::from_raw_parts(self.base.add(span.start), span.len) }
    }

    /// A span to write. It may overlap no other.
    pub fn write(&self, span: Span) -> &'a mut [f32] {
        self.take(span, true);
        // SAFETY: inside the buffer, which is borrowed mutably for 'a; `take` has checked that nothing else holds any
        // part of it, and no later borrow will.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(span.start), span.len) }
    }

    fn take(&self, span: Span, write: bool) {
        let count = self.count.get();
        assert!(count < MOST && span.start + span.len <= self.len, "span {span:?} of an arena of {}", self.len);
        for (other, written) in self.taken[..count].iter().map(Cell::get) {
            assert!(!((write || written) && span.overlaps(&other)), "a step writes {span:?} while it holds {other:?}");
        }
        self.taken[count].set((span, write));
        self.count.set(count + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Span = Span { start: 0, len: 4 };
    const B: Span = Span { start: 4, len: 4 };
    const AB: Span = Span { start: 2, len: 4 };

    #[test]
    fn disjoint_spans_are_read_and_written_at_once() {
        let mut arena = Arena::new(AlignedBuf::zeroed(8));
        let borrows = arena.borrows();
        let (a, b) = (borrows.read(A), borrows.write(B));
        b.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(a, &[0.0; 4]);
        assert_eq!(arena.borrows().read(B)[3], 4.0);
    }

    #[test]
    #[should_panic(expected = "a step writes")]
    fn an_overlapping_write_is_refused() {
        let mut arena = Arena::new(AlignedBuf::zeroed(8));
        let borrows = arena.borrows();
        borrows.read(A);
        borrows.write(AB);
    }

    #[test]
    #[should_panic(expected = "of an arena of 8")]
    fn a_span_beyond_the_arena_is_refused() {
        Arena::new(AlignedBuf::zeroed(8)).borrows().read(Span { start: 6, len: 4 });
    }
}
