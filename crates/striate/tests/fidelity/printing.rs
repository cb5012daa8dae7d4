//! Arrays, parameters and modules as text.

use crate::common::{Case, load_family};
use crate::engine::array;
use crate::report;
use striate::graph::Parameter;
use striate::nn::{self, Module, ModuleList, Sequential};
use striate::vision::models::find_model;

/// A tensor that requires a gradient prints as the second line of a parameter.
fn shown(case: &Case) -> String {
    let value = array(case, "value");
    match (case.layer.as_str(), case.json["requires_grad"] == true) {
        ("Parameter", _) => Parameter::new(value).to_string(),
        (_, true) => Parameter::new(value).to_string().replace("Parameter containing:\n", ""),
        (_, false) => value.to_string(),
    }
}

#[test]
fn arrays_and_parameters() {
    let cases: Vec<Case> = load_family("printing").into_iter().filter(|c| c.has("value")).collect();
    let wrong = |case: &Case| {
        let (got, want) = (shown(case), case.json["text"].as_str().unwrap_or_default());
        (got != want).then(|| format!("{}:\n{got}\ninstead of\n{want}", case.name))
    };
    let failures: Vec<String> = cases.iter().filter_map(wrong).collect();
    report("printing", cases.len(), &failures);
}

fn linear(inputs: usize, outputs: usize) -> nn::Linear {
    nn::Linear::new(inputs, outputs)
}

fn lenet() -> Vec<(&'static str, Box<dyn Module>)> {
    vec![
        ("conv1", Box::new(nn::Conv2d::new(1, 32, 3).stride(1).padding(1))),
        ("relu1", Box::new(nn::ReLU::new())),
        ("pool1", Box::new(nn::MaxPool2d::new(2).stride(2))),
        ("conv2", Box::new(nn::Conv2d::new(32, 64, 3).stride(1).padding(1))),
        ("relu2", Box::new(nn::ReLU::new())),
        ("pool2", Box::new(nn::MaxPool2d::new(2).stride(2))),
        ("flatten", Box::new(nn::Flatten::new())),
        ("fc1", Box::new(linear(3136, 128))),
        ("relu3", Box::new(nn::ReLU::new())),
        ("fc2", Box::new(linear(128, 10))),
    ]
}

fn containers() -> Vec<(&'static str, Box<dyn Module>)> {
    let first = striate::sequential![
        nn::Conv2d::new(1, 32, 3).stride(1).padding(1),
        nn::ReLU::new(),
        nn::MaxPool2d::new(2).stride(2),
        nn::Flatten::new(),
        linear(6272, 10),
    ];
    let named =
        Sequential::new().add_named("conv", nn::Conv2d::new(3, 8, 3)).add_named("act", nn::ReLU::new().inplace(true));
    let nested = striate::sequential![
        striate::sequential![linear(4, 3).bias(false), striate::sequential![nn::Tanh::new()]],
        nn::Identity::new(),
    ];
    let list: Vec<Box<dyn Module>> =
        vec![Box::new(linear(3, 3)), Box::new(linear(3, 3)), Box::new(nn::ReLU::new()), Box::new(linear(3, 3))];
    let lenet = lenet().into_iter().fold(Sequential::new(), |all, (name, part)| all.add_named(name, part));
    vec![
        ("sequential_empty", Box::new(Sequential::new())),
        ("sequential", Box::new(first)),
        ("sequential_named", Box::new(named)),
        ("sequential_nested", Box::new(nested)),
        ("module_list", Box::new(ModuleList::new(list))),
        ("lenet_sequential", Box::new(lenet)),
    ]
}

fn convs_and_pools() -> Vec<Box<dyn Module>> {
    vec![
        Box::new(nn::Conv2d::new(1, 32, 3)),
        Box::new(nn::Conv2d::new(1, 32, 3).stride(1).padding(1)),
        Box::new(nn::Conv2d::new(3, 6, (3, 5)).stride((2, 1)).padding((1, 2)).dilation((1, 2))),
        Box::new(nn::Conv2d::new(4, 8, 3).groups(2).bias(false)),
        Box::new(nn::Conv2d::new(4, 8, 3).padding("same")),
        Box::new(nn::Conv2d::new(4, 8, 3).padding("valid")),
        Box::new(nn::Conv2d::new(4, 8, 3).padding(1).padding_mode("reflect")),
        Box::new(nn::Conv1d::new(3, 4, 5).padding(2)),
        Box::new(nn::Conv1d::new(4, 4, 3).stride(2).groups(4)),
        Box::new(nn::ConvTranspose2d::new(3, 4, 3)),
        Box::new(
            nn::ConvTranspose2d::new(4, 4, 3).stride(2).padding(1).output_padding(1).groups(2).bias(false).dilation(2),
        ),
        Box::new(linear(7, 5)),
        Box::new(linear(7, 5).bias(false)),
        Box::new(nn::Flatten::new()),
        Box::new(nn::Flatten::new().start_dim(0).end_dim(2)),
        Box::new(nn::Identity::new()),
        Box::new(nn::MaxPool1d::new(2)),
        Box::new(nn::MaxPool2d::new(2)),
        Box::new(nn::MaxPool2d::new((3, 2)).stride((2, 1)).padding((1, 0)).dilation(2).ceil_mode(true)),
        Box::new(nn::AvgPool1d::new(3).stride(2)),
        Box::new(nn::AvgPool2d::new(2)),
        Box::new(nn::AvgPool2d::new(3).stride(2).padding(1)),
        Box::new(nn::AdaptiveAvgPool2d::new(1)),
        Box::new(nn::AdaptiveAvgPool2d::new((Some(7), None))),
        Box::new(nn::AdaptiveMaxPool2d::new((2, 3))),
        Box::new(nn::LPPool2d::new(2.0, 3).stride(2)),
        Box::new(nn::MaxUnpool2d::new(2)),
        Box::new(nn::MaxUnpool2d::new(3).stride(2).padding(1)),
    ]
}

fn norms_and_others() -> Vec<Box<dyn Module>> {
    vec![
        Box::new(nn::BatchNorm1d::new(5)),
        Box::new(nn::BatchNorm2d::new(5)),
        Box::new(nn::BatchNorm2d::new(5).eps(1e-3).momentum(None).affine(false).track_running_stats(false)),
        Box::new(nn::GroupNorm::new(2, 6)),
        Box::new(nn::LayerNorm::new(7)),
        Box::new(nn::LayerNorm::new([3, 4, 5]).eps(1e-6).elementwise_affine(false)),
        Box::new(nn::LayerNorm2d::new(6).eps(1e-6)),
        Box::new(nn::InstanceNorm2d::new(3)),
        Box::new(nn::InstanceNorm2d::new(3).affine(true).track_running_stats(true)),
        Box::new(nn::LocalResponseNorm::new(5)),
        Box::new(nn::LocalResponseNorm::new(3).alpha(0.5).beta(0.75).k(2.0)),
        Box::new(nn::Dropout::default()),
        Box::new(nn::Dropout::new(0.25).inplace(true)),
        Box::new(nn::Dropout2d::new(0.1)),
        Box::new(nn::DropBlock2d::new(0.1, 7)),
        Box::new(nn::StochasticDepth::new(0.2)),
        Box::new(nn::Upsample::new().scale_factor(2.0)),
        Box::new(nn::Upsample::new().size((4, 5)).mode("bilinear")),
        Box::new(nn::Upsample::new().scale_factor((2.0, 3.0)).mode("bicubic")),
        Box::new(nn::PixelShuffle::new(2)),
        Box::new(nn::PixelUnshuffle::new(3)),
        Box::new(nn::ChannelShuffle::new(2)),
        Box::new(nn::ZeroPad2d::new(2)),
        Box::new(nn::ConstantPad2d::new([1, 2, 0, 3], 1.5)),
        Box::new(nn::ReflectionPad2d::new(1)),
        Box::new(nn::ReplicationPad2d::new([1, 0, 1, 0])),
        Box::new(nn::CircularPad2d::new(1)),
        Box::new(nn::SqueezeExcitation::new(8, 2)),
        Box::new(nn::Conv2dNormActivation::new(3, 5, 3).activation(nn::ReLU::new().inplace(true))),
    ]
}

fn activations() -> Vec<Box<dyn Module>> {
    vec![
        Box::new(nn::ReLU::new()),
        Box::new(nn::ReLU::new().inplace(true)),
        Box::new(nn::ReLU6::new()),
        Box::new(nn::LeakyReLU::new()),
        Box::new(nn::LeakyReLU::new().negative_slope(0.2).inplace(true)),
        Box::new(nn::PReLU::new()),
        Box::new(nn::PReLU::new().num_parameters(5)),
        Box::new(nn::ELU::new()),
        Box::new(nn::ELU::new().alpha(0.7)),
        Box::new(nn::SELU::new()),
        Box::new(nn::CELU::new()),
        Box::new(nn::CELU::new().alpha(1.6)),
        Box::new(nn::GELU::new()),
        Box::new(nn::GELU::new().tanh()),
        Box::new(nn::SiLU::new()),
        Box::new(nn::SiLU::new().inplace(true)),
        Box::new(nn::Mish::new()),
        Box::new(nn::Hardswish::new()),
        Box::new(nn::Hardsigmoid::new()),
        Box::new(nn::Hardtanh::new()),
        Box::new(nn::Hardtanh::new().range(-0.5, 2.0)),
        Box::new(nn::Softplus::new()),
        Box::new(nn::Softplus::new().beta(2.0).threshold(5.0)),
        Box::new(nn::Softsign::new()),
        Box::new(nn::Sigmoid::new()),
        Box::new(nn::Tanh::new()),
        Box::new(nn::LogSigmoid::new()),
        Box::new(nn::Softmax::new(1)),
        Box::new(nn::LogSoftmax::new(-1)),
    ]
}

fn losses() -> Vec<String> {
    use striate::nn::loss;
    vec![
        loss::CrossEntropyLoss::new().to_string(),
        loss::NLLLoss::new().to_string(),
        loss::BCELoss::new().to_string(),
        loss::BCEWithLogitsLoss::new().to_string(),
        loss::MSELoss::new().to_string(),
        loss::L1Loss::new().to_string(),
        loss::SmoothL1Loss::new().to_string(),
        loss::HuberLoss::new().to_string(),
        loss::KLDivLoss::new().to_string(),
    ]
}

#[test]
fn modules() {
    let cases: Vec<Case> = load_family("printing").into_iter().filter(|c| c.layer == "module").collect();
    let mut failures = Vec::new();
    let mut compare = |case: &Case, got: &str, emptied: &[&str]| {
        let want = case.json["text"].as_str().unwrap_or_default();
        let want = emptied.iter().fold(want.to_owned(), |text, part| text.replace(part, "()"));
        if got != want {
            failures.push(format!("{}:\n{got}\ninstead of\n{want}", case.name));
        }
    };
    for (name, module) in containers() {
        let case = cases.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no case {name}"));
        compare(case, &module.to_string(), &[]);
    }
    // Torchvision's activations are in place, which ours need not be.
    for name in ["resnet18", "resnet50", "mobilenet_v2", "vgg11_bn"] {
        let case = cases.iter().find(|c| c.name == format!("model_{name}")).unwrap_or_else(|| panic!("no case {name}"));
        let model = find_model(name).and_then(|spec| spec.build([3, 224, 224], 1000, 0));
        let shown = model.unwrap_or_else(|e| panic!("{name}: {e}")).to_string();
        compare(case, &shown.replace("(inplace=True)", "()"), &["(inplace=True)"]);
    }
    let layers: Vec<&Case> = cases.iter().filter(|c| c.name.starts_with("layer_")).collect();
    let modules = convs_and_pools().into_iter().chain(norms_and_others()).chain(activations());
    let texts: Vec<String> = modules.map(|m| m.to_string()).chain(losses()).collect();
    assert_eq!(texts.len(), layers.len(), "one layer for each case");
    layers.iter().zip(&texts).for_each(|(case, text)| compare(case, text, &[]));
    report("printing of modules", cases.len(), &failures);
}
