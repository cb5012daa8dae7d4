use crate::{Module, Path, Visitor, display_module};
use striate_graph::Tensor;

/// Modules one after the other, named by position or as given. [`sequential!`](crate::sequential) writes it shorter.
#[derive(Default)]
pub struct Sequential {
    modules: Vec<(String, Box<dyn Module>)>,
    path: Path,
}

impl Sequential {
    /// Without modules: the identity.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// Adds a module, named by its position.
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, module: impl Module + 'static) -> Sequential {
        let name = self.modules.len().to_string();
        self.add_named(name, module)
    }

    /// Adds a module under a name.
    pub fn add_named(mut self, name: impl Into<String>, module: impl Module + 'static) -> Sequential {
        self.modules.push((name.into(), Box::new(module)));
        self
    }

    /// Adds a module at the end, named by its position.
    pub fn push(&mut self, module: Box<dyn Module>) {
        self.modules.push((self.modules.len().to_string(), module));
    }

    /// Number of modules.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// True without modules.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// A module by position.
    pub fn get(&self, index: usize) -> Option<&dyn Module> {
        self.modules.get(index).map(|(_, module)| &**module)
    }

    /// Modules with their names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &dyn Module)> {
        self.modules.iter().map(|(name, module)| (name.as_str(), &**module))
    }
}

impl FromIterator<Box<dyn Module>> for Sequential {
    fn from_iter<I: IntoIterator<Item = Box<dyn Module>>>(modules: I) -> Sequential {
        let mut all = Sequential::new();
        modules.into_iter().for_each(|module| all.push(module));
        all
    }
}

impl Module for Sequential {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.clone();
        for (_, module) in &self.modules {
            x = module.call(&x);
        }
        x
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        self.modules.iter().for_each(|(name, module)| visitor.module(name, &**module));
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(Sequential);

/// `sequential![a, b, c]`: a [`Sequential`] of these modules.
#[macro_export]
macro_rules! sequential {
    ($($module:expr),* $(,)?) => { $crate::Sequential::new()$(.add($module))* };
}

/// Modules in a list, for a net that calls them itself.
pub struct ModuleList<M> {
    /// The modules, named `0`, `1`, …
    pub modules: Vec<M>,
}

impl<M: Module> ModuleList<M> {
    /// Around these modules.
    pub fn new(modules: Vec<M>) -> ModuleList<M> {
        ModuleList { modules }
    }
}

impl<M: Module> Module for ModuleList<M> {
    /// A list has no forward: it is refused, as PyTorch does.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.trace().refuse("ModuleList", "a list of modules was called", "call the modules in it, or use Sequential")
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        self.modules.iter().enumerate().for_each(|(i, module)| visitor.module(&i.to_string(), module));
    }

    fn counts_repeats(&self) -> bool {
        true
    }
}

impl<M: Module> std::fmt::Display for ModuleList<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::describe(self))
    }
}
