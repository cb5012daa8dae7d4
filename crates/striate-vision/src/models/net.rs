//! A net of either registry.

use super::detection::DetectionNet;
use std::ops::Deref;
use striate_nn::Module;

/// A net as training, evaluation and files have it: one that gives rows of values, or a detector. As a [`Module`] both are the same.
pub enum TaskNet {
    /// Its outputs are what it says.
    Plain(Box<dyn Module>),
    /// Its heads become boxes.
    Detector(Box<dyn DetectionNet>),
}

impl TaskNet {
    /// The net as a detector, if it is one.
    pub fn detector(&self) -> Option<&dyn DetectionNet> {
        match self {
            TaskNet::Plain(_) => None,
            TaskNet::Detector(net) => Some(&**net),
        }
    }
}

impl Deref for TaskNet {
    type Target = dyn Module;
    fn deref(&self) -> &(dyn Module + 'static) {
        match self {
            TaskNet::Plain(net) => &**net,
            TaskNet::Detector(net) => &**net,
        }
    }
}
