use super::registry::ModelSpec;
use super::start;
use striate_graph::Tensor;
use striate_nn::{Conv2d, Linear, MaxPool2d, Module, Path, display_module, visit_fields};

pub(super) static MODELS: &[ModelSpec] =
    &[ModelSpec::other("lenet", "two convolutions and two linear layers", start::layers, |i, k| {
        Box::new(LeNet::new(i, k))
    })
    .small([1, 28, 28], 10)];

/// The net of a first lesson: conv 3x3x32 – ReLU – pool – conv 3x3x64 – ReLU – pool – fc 128 – ReLU – fc, after LeCun et al. 1998.
///
/// Input `[N, C, H, W]` of the size that it was made for (28x28 as a rule), output `[N, classes]`.
pub struct LeNet {
    /// `C` to 32, 3x3.
    pub conv1: Conv2d,
    /// 32 to 64, 3x3.
    pub conv2: Conv2d,
    /// To 128.
    pub fc1: Linear,
    /// To the classes.
    pub fc2: Linear,
    pool: MaxPool2d,
    path: Path,
}

impl LeNet {
    /// For pictures `[C, H, W]`.
    pub fn new([channels, height, width]: [usize; 3], classes: usize) -> LeNet {
        LeNet {
            conv1: Conv2d::new(channels, 32, 3).padding(1),
            conv2: Conv2d::new(32, 64, 3).padding(1),
            fc1: Linear::new(64 * (height / 4) * (width / 4), 128),
            fc2: Linear::new(128, classes),
            pool: MaxPool2d::new(2),
            path: Path::default(),
        }
    }
}

impl Module for LeNet {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.pool.call(&self.conv1.call(x).relu());
        let x = self.pool.call(&self.conv2.call(&x).relu());
        let x = self.fc1.call(&x.flatten(1, -1)).relu();
        self.fc2.call(&x)
    }
    visit_fields!(conv1, conv2, fc1, fc2);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(LeNet);
