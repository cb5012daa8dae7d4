//! The values of a program: where they lie, and in which order their elements stand.

use crate::run::arena::Span;
use crate::{DType, Shape};

/// In which order the elements stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// Row-major, as the graph says.
    Rows,
    /// The channel axis (1) last: NHWC of `[N, C, H, W]`, NWC of `[N, C, W]`.
    ChannelsLast,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In a buffer of the arena, `offset` floats behind its start.
    Buffer { buffer: usize, offset: usize },
    /// In the arena; what `Buffer` becomes when the memory is planned.
    Arena(Span),
    /// In an array that the caller gives.
    Input(usize),
    /// In a parameter cell.
    Parameter(usize),
    /// In the program.
    Constant(usize),
    /// In an array of the session: values that are not f32.
    Host(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ValueId(pub u32);

impl ValueId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A value of a program.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub place: Place,
    /// As in the graph: `[N, C, H, W]` also where the layout is channels-last.
    pub shape: Shape,
    pub dtype: DType,
    pub layout: Layout,
    /// Of some channels of a larger channels-last value: the floats from one pixel to the next.
    pub pitch: Option<usize>,
}

impl Value {
    /// The sizes in memory order.
    pub fn physical(&self) -> Vec<usize> {
        physical(&self.shape, self.layout)
    }

    /// Floats from one pixel to the next, where the channels lie last.
    pub fn pixel_pitch(&self) -> usize {
        self.pitch.unwrap_or(self.shape[1])
    }

    /// Floats from its first to its last.
    pub fn span(&self) -> usize {
        match (self.shape.numel(), self.pitch) {
            (0, _) | (_, None) => self.shape.numel(),
            (numel, Some(pitch)) => (numel / self.shape[1] - 1) * pitch + self.shape[1],
        }
    }

    /// The stride of each axis of the graph's shape.
    pub fn logical_strides(&self) -> Vec<usize> {
        let mut sizes = self.physical();
        if let (Some(pitch), Some(channels)) = (self.pitch, sizes.last_mut()) {
            *channels = pitch;
        }
        let strides = Shape::from(sizes).strides();
        match self.layout {
            Layout::Rows => strides,
            Layout::ChannelsLast => memory_axes(self.shape.rank()).iter().map(|&at| strides[at]).collect(),
        }
    }
}

/// The sizes in memory order.
pub(crate) fn physical(shape: &Shape, layout: Layout) -> Vec<usize> {
    match layout {
        Layout::Rows => shape.to_vec(),
        Layout::ChannelsLast => {
            let mut sizes = shape.to_vec();
            let channels = sizes.remove(1);
            sizes.push(channels);
            sizes
        }
    }
}

/// For each axis of the graph, its place in channels-last memory: `[0, 3, 1, 2]` of four.
pub(crate) fn memory_axes(rank: usize) -> Vec<usize> {
    (0..rank)
        .map(|axis| {
            if axis == 0 {
                0
            } else if axis == 1 {
                rank - 1
            } else {
                axis - 1
            }
        })
        .collect()
}

/// True where both layouts have the same bytes.
pub(crate) fn layouts_coincide(shape: &Shape) -> bool {
    shape.rank() < 3 || shape[1] == 1 || shape[2..].iter().all(|&size| size == 1) || shape.numel() == 0
}

/// True where a value of this kind may be held channels-last.
pub(crate) fn may_be_channels_last(shape: &Shape, dtype: DType) -> bool {
    dtype == DType::F32 && matches!(shape.rank(), 3 | 4)
}
