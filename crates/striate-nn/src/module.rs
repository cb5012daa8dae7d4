//! What every layer and net is: [`Module`].

use crate::init::Draw;
use crate::state::{LoadReport, StateDict};
use crate::{Result, state};
use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use striate_graph::{
    Array, DType, Graph, Mode, ParamKind, Parameter, RandomKind, RunOptions, Scope, Shape, Tensor, Trace, interpret,
};

/// A layer or a net: parameter cells, and a `forward` that records operations.
///
/// A net of one's own implements `forward` and lists its fields; everything else is provided.
///
/// ```
/// use striate_nn::{Conv2d, Linear, Module, visit_fields};
/// use striate_graph::Tensor;
///
/// struct Net { conv: Conv2d, fc: Linear }
///
/// impl Module for Net {
///     fn forward(&self, x: &Tensor) -> Tensor {
///         let x = self.conv.call(x).relu().flatten(1, -1);
///         self.fc.call(&x)
///     }
///     visit_fields!(conv, fc);
/// }
///
/// let net = Net { conv: Conv2d::new(1, 4, 3), fc: Linear::new(4 * 4 * 4, 10) };
/// let names: Vec<String> = net.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]);
/// ```
pub trait Module: Send + Sync {
    /// Records what the module does to `x`. Call other modules by [`Module::call`].
    fn forward(&self, x: &Tensor) -> Tensor;

    /// Shows every child module and every parameter to the visitor, by field name, in PyTorch's order;
    /// [`visit_fields!`](crate::visit_fields) writes it.
    fn visit(&self, visitor: &mut dyn Visitor);

    /// Where the module keeps its place in the net. Without one its values cannot be tapped by name.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// The class name that printing shows.
    fn class_name(&self) -> String {
        let full = std::any::type_name::<Self>();
        let plain = full.split('<').next().unwrap_or(full);
        plain.rsplit("::").next().unwrap_or(plain).to_owned()
    }

    /// What printing shows between the parentheses.
    fn extra_repr(&self) -> String {
        String::new()
    }

    /// Whether printing joins equal neighbours, as for a [`crate::ModuleList`].
    fn counts_repeats(&self) -> bool {
        false
    }

    /// Gives the module's own parameters (not those of its children) their initial values again, drawn from `draw`.
    fn reset_parameters(&self, draw: &Draw) {
        let _ = draw;
    }

    /// Applies the module within a trace: enters its path, records `forward`, and marks the value so that a tap finds it.
    #[track_caller]
    fn call(&self, x: &Tensor) -> Tensor {
        let trace = x.trace();
        if trace.depth() == 0 {
            name_from_here(self);
        }
        // No closure here: it would hide the caller's line from the nodes.
        let within = Within::enter(self.path(), trace);
        let y = self.forward(x);
        within.leave(&y);
        y
    }

    /// What a training loss looks at: each output with the factor of its loss. One, with factor 1, but for nets with heads that
    /// only training uses.
    #[track_caller]
    fn forward_training(&self, x: &Tensor) -> Vec<(Tensor, f64)> {
        vec![(self.forward(x), 1.0)]
    }

    /// As [`Module::call`], for all outputs that training looks at; the first is that of `call`.
    #[track_caller]
    fn call_training(&self, x: &Tensor) -> Vec<(Tensor, f64)> {
        let trace = x.trace();
        if trace.depth() == 0 {
            name_from_here(self);
        }
        let within = Within::enter(self.path(), trace);
        let outputs = self.forward_training(x);
        if let Some((first, _)) = outputs.first() {
            within.leave(first);
        }
        outputs
    }

    /// Applies the module to data at once, in evaluation mode: for looking at what a layer does. It traces the module and
    /// interprets the graph, without any planning; to run a net often, compile it.
    ///
    /// ```
    /// use striate_graph::Array;
    /// use striate_nn::{MaxPool2d, Module};
    /// let x = Array::from_vec([1, 1, 2, 2], vec![1f32, 2.0, 3.0, 4.0])?;
    /// assert_eq!(MaxPool2d::new(2).apply(&x)?.to_string(), "tensor([[[[4.]]]])");
    /// # Ok::<(), striate_nn::Error>(())
    /// ```
    ///
    /// # Errors
    /// The first thing in the module that does not fit the input.
    #[track_caller]
    fn apply(&self, x: &Array) -> Result<Array> {
        let trace = Trace::new(Mode::Eval);
        let input = trace.input("input", x.shape(), x.dtype());
        let y = self.call(&input);
        let graph = trace.finish(&[("output", &y)])?;
        Ok(interpret(&graph, &[("input", x.clone())], &RunOptions::default())?.remove(0))
    }

    /// Traces the module for an input of this shape: the graph has the input `input` and the output `output`.
    ///
    /// # Errors
    /// The first thing in the module that does not fit the shape.
    fn graph(&self, mode: Mode, shape: &[usize]) -> Result<Graph> {
        let trace = Trace::new(mode);
        let x = trace.input("input", shape, DType::F32);
        let y = self.call(&x);
        Ok(trace.finish(&[("output", &y)])?)
    }

    /// All parameters and buffers, named as in PyTorch, in PyTorch's order. Values are shared, not copied.
    fn state_dict(&self) -> StateDict {
        cells(self).into_iter().map(|(name, cell)| (name, cell.array())).collect()
    }

    /// Replaces parameters and buffers. With `strict` every key must be there and known; otherwise what fits by name is
    /// loaded and the report says what did not. Values of another shape are refused either way. A missing
    /// `num_batches_tracked` is no error: old files lack it.
    ///
    /// # Errors
    /// Everything that does not fit, each with the nearest known name; then nothing has been loaded.
    fn load_state_dict(&self, dict: &StateDict, strict: bool) -> Result<LoadReport> {
        state::load(&cells(self), dict, strict)
    }

    /// The learned parameters, each cell once.
    fn parameters(&self) -> Vec<Parameter> {
        self.named_parameters().into_iter().map(|(_, parameter)| parameter).collect()
    }

    /// The learned parameters with their names, each cell once.
    fn named_parameters(&self) -> Vec<(String, Parameter)> {
        let weights = cells(self).into_iter().filter(|(_, cell)| cell.kind() == ParamKind::Weight);
        let mut seen = HashSet::new();
        weights.filter(|(_, cell)| seen.insert(cell.id())).collect()
    }

    /// State that is saved but not learned, such as running statistics.
    fn buffers(&self) -> Vec<(String, Parameter)> {
        cells(self).into_iter().filter(|(_, cell)| cell.kind() == ParamKind::Buffer).collect()
    }

    /// Number of learned values.
    fn num_parameters(&self) -> usize {
        self.parameters().iter().map(|p| p.shape().numel()).sum()
    }

    /// Freezes (`false`) or thaws all parameters.
    fn requires_grad_(&self, trainable: bool) {
        self.parameters().iter().for_each(|p| p.set_requires_grad(trainable));
    }
}

/// The time that a trace spends in a layer.
pub(crate) struct Within {
    path: Option<Arc<str>>,
    _scope: Option<Scope>,
}

impl Within {
    /// Enters the layer's path, if it has one.
    pub(crate) fn enter(path: Option<&Path>, trace: &Trace) -> Within {
        let path = path.map(Path::get);
        Within { _scope: path.as_ref().map(|path| trace.enter(path)), path }
    }

    /// Leaves the layer and marks its value for taps.
    pub(crate) fn leave(self, value: &Tensor) {
        if let Some(path) = self.path.filter(|path| !path.is_empty()) {
            value.trace().mark(&path, value);
        }
    }
}

/// Sees the parts of a module, in order.
pub trait Visitor {
    /// A child module under its field name.
    fn module(&mut self, name: &str, module: &dyn Module);
    /// A parameter or buffer under its field name.
    fn parameter(&mut self, name: &str, parameter: &Parameter);
}

/// A module's place in the net, such as `layer1.0.conv1`. It is given by [`assign_names`] or by the first `call` of the net.
#[derive(Debug, Default)]
pub struct Path(RwLock<Option<Arc<str>>>);

impl Path {
    /// The path; empty for the net itself and before naming.
    pub fn get(&self) -> Arc<str> {
        self.0.read().expect("no holder panics").clone().unwrap_or_else(|| "".into())
    }

    fn assign(&self, path: &str, force: bool) {
        let mut place = self.0.write().expect("no holder panics");
        if force || place.as_ref().is_none_or(|old| old.len() < path.len()) {
            *place = Some(path.into());
        }
    }
}

impl Clone for Path {
    fn clone(&self) -> Path {
        Path(RwLock::new(self.0.read().expect("no holder panics").clone()))
    }
}

pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

struct Namer {
    prefix: String,
    seen: HashSet<usize>,
    force: bool,
}

impl Visitor for Namer {
    fn module(&mut self, name: &str, module: &dyn Module) {
        let longer = join(&self.prefix, name);
        let outer = std::mem::replace(&mut self.prefix, longer);
        if let Some(path) = module.path()
            && self.seen.insert(std::ptr::from_ref(path) as usize)
        {
            path.assign(&self.prefix, self.force);
        }
        module.visit(self);
        self.prefix = outer;
    }

    fn parameter(&mut self, name: &str, parameter: &Parameter) {
        if self.seen.insert(parameter.id()) {
            let full = join(&self.prefix, name);
            if self.force || parameter.name().len() < full.len() {
                parameter.set_name(&full);
            }
        }
    }
}

fn name_all<M: Module + ?Sized>(root: &M, force: bool) {
    let mut namer = Namer { prefix: String::new(), seen: HashSet::new(), force };
    if let Some(path) = root.path() {
        path.assign("", force);
    }
    root.visit(&mut namer);
}

/// Names every layer and every cell by its way from `root`. Of a tied cell the first name wins.
pub fn assign_names<M: Module + ?Sized>(root: &M) {
    name_all(root, true);
}

/// As [`assign_names`], but a longer name, which comes from a larger net around this module, stays.
fn name_from_here<M: Module + ?Sized>(root: &M) {
    name_all(root, false);
}

struct Cells {
    prefix: String,
    found: Vec<(String, Parameter)>,
}

impl Visitor for Cells {
    fn module(&mut self, name: &str, module: &dyn Module) {
        let longer = join(&self.prefix, name);
        let outer = std::mem::replace(&mut self.prefix, longer);
        module.visit(self);
        self.prefix = outer;
    }

    fn parameter(&mut self, name: &str, parameter: &Parameter) {
        self.found.push((join(&self.prefix, name), parameter.clone()));
    }
}

/// All cells by name, tied ones under each of their names.
fn cells<M: Module + ?Sized>(root: &M) -> Vec<(String, Parameter)> {
    let mut cells = Cells { prefix: String::new(), found: Vec::new() };
    root.visit(&mut cells);
    cells.found
}

/// A purpose for [`Trace::random`] that no other random node of this trace and layer has: the purpose itself the first
/// time, then with a number, so that a layer that is called twice draws different masks.
pub fn fresh_purpose(trace: &Trace, purpose: &str) -> String {
    let path = trace.path();
    let taken = |candidate: &str| {
        let stream = format!("{candidate}:{path}");
        trace.with_graph(|graph| {
            graph.nodes.iter().any(|n| matches!(&n.op, striate_graph::Op::Random { stream: s, .. } if **s == *stream))
        })
    };
    let numbered = (1..).map(|i| if i == 1 { purpose.to_owned() } else { format!("{purpose}#{i}") });
    numbered.into_iter().find(|candidate| !taken(candidate)).unwrap_or_else(|| purpose.to_owned())
}

/// A mask of dropout: `1 / keep` with probability `keep`, else 0.
pub(crate) fn mask(trace: &Trace, purpose: &str, keep: f64, shape: impl Into<Shape>) -> Tensor {
    trace.random(RandomKind::Mask { keep: keep as f32 }, &fresh_purpose(trace, purpose), shape)
}

macro_rules! pointer_module {
    ($($pointer:ident),*) => {$(
        impl<M: Module + ?Sized> Module for $pointer<M> {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                (**self).forward(x)
            }
            #[track_caller]
            fn forward_training(&self, x: &Tensor) -> Vec<(Tensor, f64)> {
                (**self).forward_training(x)
            }
            fn visit(&self, visitor: &mut dyn Visitor) {
                (**self).visit(visitor);
            }
            fn path(&self) -> Option<&Path> {
                (**self).path()
            }
            fn class_name(&self) -> String {
                (**self).class_name()
            }
            fn extra_repr(&self) -> String {
                (**self).extra_repr()
            }
            fn counts_repeats(&self) -> bool {
                (**self).counts_repeats()
            }
            fn reset_parameters(&self, draw: &Draw) {
                (**self).reset_parameters(draw);
            }
        }
    )*};
}
pointer_module!(Box, Arc);

/// What can stand in a field that [`visit_fields!`](crate::visit_fields) lists.
pub trait Field {
    /// Shows the field to the visitor.
    fn visit_field(&self, name: &str, visitor: &mut dyn Visitor);
}

impl Field for Parameter {
    fn visit_field(&self, name: &str, visitor: &mut dyn Visitor) {
        visitor.parameter(name, self);
    }
}

impl<M: Module> Field for M {
    fn visit_field(&self, name: &str, visitor: &mut dyn Visitor) {
        visitor.module(name, self);
    }
}

impl<F: Field> Field for Option<F> {
    fn visit_field(&self, name: &str, visitor: &mut dyn Visitor) {
        if let Some(field) = self {
            field.visit_field(name, visitor);
        }
    }
}

/// Writes [`Module::visit`] inside an `impl Module`: lists the fields that are modules, parameters, or options of either,
/// in the order in which PyTorch would register them. `name as "0"` shows a field under another name.
#[macro_export]
macro_rules! visit_fields {
    ($($field:ident $(as $name:literal)?),* $(,)?) => {
        fn visit(&self, visitor: &mut dyn $crate::Visitor) {
            let _ = &visitor;
            $($crate::Field::visit_field(&self.$field, $crate::visit_fields!(@name $field $($name)?), visitor);)*
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}
