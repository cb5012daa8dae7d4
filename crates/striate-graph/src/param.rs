use crate::plan::packed::PackedForms;
use crate::{Array, DType, Error, Result, Shape};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// What a cell is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamKind {
    /// Learned: part of `parameters()`.
    Weight,
    /// State that is saved but not learned, such as running statistics: part of `buffers()`.
    Buffer,
}

/// A shared cell {name, array, version} that a layer holds. Clones are the same cell: tied weights are one cell.
///
/// Printing it shows the values as they are now, so that `println!("{}", net.conv1.weight)` between two training steps
/// shows what training did.
#[derive(Clone)]
pub struct Parameter(Arc<Cell>);

struct Cell {
    name: RwLock<Arc<str>>,
    array: RwLock<Array>,
    /// Goes up with each write; whatever was packed from the array is remade when it differs.
    version: AtomicU64,
    kind: ParamKind,
    trainable: AtomicBool,
    packed: Mutex<PackedForms>,
}

impl Parameter {
    /// A learned cell. Layers name it when they are put together; see [`Parameter::set_name`].
    pub fn new(array: Array) -> Self {
        Parameter::with_kind(array, ParamKind::Weight)
    }

    /// A state cell: saved, not learned.
    pub fn buffer(array: Array) -> Self {
        Parameter::with_kind(array, ParamKind::Buffer)
    }

    fn with_kind(array: Array, kind: ParamKind) -> Self {
        Parameter(Arc::new(Cell {
            name: RwLock::new("".into()),
            array: RwLock::new(array),
            version: AtomicU64::new(0),
            kind,
            trainable: AtomicBool::new(kind == ParamKind::Weight),
            packed: Mutex::default(),
        }))
    }

    /// The cell's full name, e.g. `layer1.0.conv1.weight`.
    pub fn name(&self) -> Arc<str> {
        self.0.name.read().expect("no holder panics").clone()
    }

    /// Gives the cell its name.
    pub fn set_name(&self, name: &str) {
        *self.0.name.write().expect("no holder panics") = name.into();
    }

    /// The values as they are now (shared, not copied).
    pub fn array(&self) -> Array {
        self.0.array.read().expect("no holder panics").clone()
    }

    /// Replaces the values.
    ///
    /// # Errors
    /// Where shape or type differ from the cell's.
    pub fn set(&self, array: Array) -> Result<()> {
        self.update(|cell| {
            if cell.shape() != array.shape() || cell.dtype() != array.dtype() {
                return Err(Error::Mismatch {
                    what: format!("parameter `{}`", self.name()),
                    expected: cell.shape().clone(),
                    expected_dtype: cell.dtype(),
                    got: array.shape().clone(),
                    got_dtype: array.dtype(),
                });
            }
            *cell = array;
            Ok(())
        })
    }

    /// Changes the values in place; the version goes up.
    pub fn update<R>(&self, change: impl FnOnce(&mut Array) -> R) -> R {
        let mut array = self.0.array.write().expect("no holder panics");
        let result = change(&mut array);
        self.0.version.fetch_add(1, Ordering::Release);
        result
    }

    /// How often the values have been written.
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// Shape of the values.
    pub fn shape(&self) -> Shape {
        self.0.array.read().expect("no holder panics").shape().clone()
    }

    /// Type of the values.
    pub fn dtype(&self) -> DType {
        self.0.array.read().expect("no holder panics").dtype()
    }

    /// Learned or state.
    pub fn kind(&self) -> ParamKind {
        self.0.kind
    }

    /// Whether training changes it (PyTorch's `requires_grad`).
    pub fn requires_grad(&self) -> bool {
        self.0.trainable.load(Ordering::Relaxed)
    }

    /// Freezes (`false`) or thaws the cell.
    pub fn set_requires_grad(&self, trainable: bool) {
        self.0.trainable.store(trainable && self.0.kind == ParamKind::Weight, Ordering::Relaxed);
    }

    /// True where both handles are the same cell.
    pub fn same_cell(&self, other: &Parameter) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn with_packed<R>(&self, look: impl FnOnce(&mut PackedForms) -> R) -> R {
        look(&mut self.0.packed.lock().expect("no holder panics"))
    }

    /// The values and the version that they have, read together.
    pub(crate) fn snapshot(&self) -> (Array, u64) {
        let array = self.0.array.read().expect("no holder panics");
        (array.clone(), self.version())
    }

    /// A number that identifies the cell as long as it lives.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameter({} {} {} v{})", self.name(), self.dtype(), self.shape(), self.version())
    }
}
