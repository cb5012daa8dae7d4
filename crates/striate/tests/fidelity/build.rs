//! From a fixture's JSON arguments to a layer.

use serde_json::Value;
use striate::graph::PadMode;
use striate::nn::{self, Module, OutputSize, Padding, Sequential, Sizes};

type Built = Box<dyn Module>;

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("inf") => f64::INFINITY,
        _ => value.as_f64().unwrap_or_else(|| panic!("{value} is no number")),
    }
}

fn whole(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count")) as usize
}

fn signed(value: &Value) -> isize {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number")) as isize
}

/// A number or a pair.
pub fn sizes(value: &Value) -> Sizes {
    match value.as_array() {
        Some(pair) => (whole(&pair[0]), whole(&pair[1])).into(),
        None => whole(value).into(),
    }
}

fn output_size(value: &Value) -> OutputSize {
    match value.as_array() {
        Some(pair) => (pair[0].as_u64().map(|n| n as usize), pair[1].as_u64().map(|n| n as usize)).into(),
        None => whole(value).into(),
    }
}

fn padding(value: &Value) -> Padding {
    match value {
        Value::String(name) => name.as_str().into(),
        Value::Array(pair) => (whole(&pair[0]), whole(&pair[1])).into(),
        Value::Object(sides) => {
            let side = |name: &str| sides.get(name).map_or(0, signed);
            [side("top"), side("left"), side("bottom"), side("right")].into()
        }
        one => whole(one).into(),
    }
}

/// All sides of a padding layer: one number, or each side's.
fn pad_sides<const N: usize>(value: &Value) -> [isize; N] {
    match value.as_array() {
        Some(all) => std::array::from_fn(|i| signed(&all[i])),
        None => [signed(value); N],
    }
}

fn flag(args: &Value, name: &str) -> bool {
    args[name].as_bool().unwrap_or(false)
}

/// The layer of a case, by PyTorch's class and arguments.
pub fn build(layer: &str, args: &Value) -> Option<Built> {
    conv(layer, args)
        .or_else(|| pool(layer, args))
        .or_else(|| norm(layer, args))
        .or_else(|| activation(layer, args))
        .or_else(|| movement(layer, args))
        .or_else(|| other(layer, args))
}

fn conv(layer: &str, args: &Value) -> Option<Built> {
    let [inputs, outputs] = [&args["in_channels"], &args["out_channels"]].map(|v| v.as_u64().unwrap_or(0) as usize);
    let mode = args["padding_mode"].as_str().unwrap_or("zeros");
    Some(match layer {
        "Conv2d" => Box::new(
            nn::Conv2d::new(inputs, outputs, sizes(&args["kernel_size"]))
                .stride(sizes(&args["stride"]))
                .padding(padding(&args["padding"]))
                .dilation(sizes(&args["dilation"]))
                .groups(whole(&args["groups"]))
                .bias(flag(args, "bias"))
                .padding_mode(mode),
        ),
        "Conv1d" => Box::new(
            nn::Conv1d::new(inputs, outputs, sizes(&args["kernel_size"]).pair()[0])
                .stride(sizes(&args["stride"]).pair()[0])
                .padding(padding(&args["padding"]))
                .dilation(sizes(&args["dilation"]).pair()[0])
                .groups(whole(&args["groups"]))
                .bias(flag(args, "bias"))
                .padding_mode(mode),
        ),
        "ConvTranspose2d" => Box::new(conv_transpose(args)),
        _ => return None,
    })
}

/// A `ConvTranspose2d`, which the harness may call with an output size.
pub fn conv_transpose(args: &Value) -> nn::ConvTranspose2d {
    nn::ConvTranspose2d::new(whole(&args["in_channels"]), whole(&args["out_channels"]), sizes(&args["kernel_size"]))
        .stride(sizes(&args["stride"]))
        .padding(sizes(&args["padding"]))
        .output_padding(sizes(&args["output_padding"]))
        .dilation(sizes(&args["dilation"]))
        .groups(whole(&args["groups"]))
        .bias(flag(args, "bias"))
}

/// A `MaxPool2d`, which the harness may ask for indices.
pub fn max_pool2d(args: &Value) -> nn::MaxPool2d {
    let pool = nn::MaxPool2d::new(sizes(&args["kernel_size"]))
        .padding(sizes(&args["padding"]))
        .dilation(sizes(&args["dilation"]))
        .ceil_mode(flag(args, "ceil_mode"));
    if args["stride"].is_null() { pool } else { pool.stride(sizes(&args["stride"])) }
}

/// A `MaxPool1d`, which the harness may ask for indices.
pub fn max_pool1d(args: &Value) -> nn::MaxPool1d {
    let pool = nn::MaxPool1d::new(whole(&args["kernel_size"]))
        .padding(whole(&args["padding"]))
        .dilation(whole(&args["dilation"]))
        .ceil_mode(flag(args, "ceil_mode"));
    if args["stride"].is_null() { pool } else { pool.stride(whole(&args["stride"])) }
}

/// An `AdaptiveMaxPool2d`, which the harness may ask for indices.
pub fn adaptive_max_pool2d(args: &Value) -> nn::AdaptiveMaxPool2d {
    nn::AdaptiveMaxPool2d::new(output_size(&args["output_size"]))
}

/// A `MaxUnpool2d`.
pub fn max_unpool2d(args: &Value) -> nn::MaxUnpool2d {
    let pool = nn::MaxUnpool2d::new(sizes(&args["kernel_size"])).padding(sizes(&args["padding"]));
    if args["stride"].is_null() { pool } else { pool.stride(sizes(&args["stride"])) }
}

fn pool(layer: &str, args: &Value) -> Option<Built> {
    let stride = &args["stride"];
    Some(match layer {
        "MaxPool2d" => Box::new(max_pool2d(args)),
        "MaxPool1d" => Box::new(max_pool1d(args)),
        "MaxUnpool2d" => Box::new(max_unpool2d(args)),
        "AdaptiveMaxPool2d" => Box::new(adaptive_max_pool2d(args)),
        "AdaptiveAvgPool2d" => Box::new(nn::AdaptiveAvgPool2d::new(output_size(&args["output_size"]))),
        "AvgPool2d" => {
            let mut pool = nn::AvgPool2d::new(sizes(&args["kernel_size"]))
                .padding(sizes(&args["padding"]))
                .ceil_mode(flag(args, "ceil_mode"))
                .count_include_pad(flag(args, "count_include_pad"));
            if !stride.is_null() {
                pool = pool.stride(sizes(stride));
            }
            if let Some(divisor) = args["divisor_override"].as_u64() {
                pool = pool.divisor_override(divisor as usize);
            }
            Box::new(pool)
        }
        "AvgPool1d" => {
            let pool = nn::AvgPool1d::new(whole(&args["kernel_size"]))
                .padding(whole(&args["padding"]))
                .ceil_mode(flag(args, "ceil_mode"))
                .count_include_pad(flag(args, "count_include_pad"));
            Box::new(if stride.is_null() { pool } else { pool.stride(whole(stride)) })
        }
        "LPPool2d" => {
            let pool = nn::LPPool2d::new(number(&args["norm_type"]), sizes(&args["kernel_size"]));
            let pool = pool.ceil_mode(flag(args, "ceil_mode"));
            Box::new(if stride.is_null() { pool } else { pool.stride(sizes(stride)) })
        }
        _ => return None,
    })
}

fn norm(layer: &str, args: &Value) -> Option<Built> {
    macro_rules! batch_norm {
        ($class:ident) => {{
            let momentum: Option<f64> = args["momentum"].as_f64();
            let norm = nn::$class::new(whole(&args["num_features"])).eps(number(&args["eps"])).momentum(momentum);
            Box::new(norm.affine(flag(args, "affine")).track_running_stats(flag(args, "track_running_stats")))
        }};
    }
    let bias = flag(args, "bias");
    Some(match layer {
        "BatchNorm2d" => batch_norm!(BatchNorm2d),
        "BatchNorm1d" => batch_norm!(BatchNorm1d),
        "InstanceNorm2d" => Box::new(
            nn::InstanceNorm2d::new(whole(&args["num_features"]))
                .eps(number(&args["eps"]))
                .momentum(number(&args["momentum"]))
                .affine(flag(args, "affine"))
                .track_running_stats(flag(args, "track_running_stats")),
        ),
        "GroupNorm" => Box::new(
            nn::GroupNorm::new(whole(&args["num_groups"]), whole(&args["num_channels"]))
                .eps(number(&args["eps"]))
                .affine(flag(args, "affine")),
        ),
        "LayerNorm" => {
            let shape: Vec<usize> = match args["normalized_shape"].as_array() {
                Some(sizes) => sizes.iter().map(whole).collect(),
                None => vec![whole(&args["normalized_shape"])],
            };
            let affine = flag(args, "elementwise_affine");
            let norm = nn::LayerNorm::new(&shape[..]).eps(number(&args["eps"])).elementwise_affine(affine);
            Box::new(if affine { norm.bias(bias) } else { norm })
        }
        "LayerNorm2d" => Box::new(nn::LayerNorm2d::new(whole(&args["normalized_shape"])).eps(number(&args["eps"]))),
        "LocalResponseNorm" => Box::new(
            nn::LocalResponseNorm::new(whole(&args["size"]))
                .alpha(number(&args["alpha"]))
                .beta(number(&args["beta"]))
                .k(number(&args["k"])),
        ),
        _ => return None,
    })
}

/// An activation by its class name, with its arguments if there are any.
pub fn activation(layer: &str, args: &Value) -> Option<Built> {
    let or = |name: &str, default: f64| args.get(name).map_or(default, number);
    Some(match layer {
        "ReLU" => Box::new(nn::ReLU::new().inplace(flag(args, "inplace"))),
        "ReLU6" => Box::new(nn::ReLU6::new()),
        "LeakyReLU" => Box::new(nn::LeakyReLU::new().negative_slope(or("negative_slope", 0.01))),
        "ELU" => Box::new(nn::ELU::new().alpha(or("alpha", 1.0))),
        "SELU" => Box::new(nn::SELU::new()),
        "CELU" => Box::new(nn::CELU::new().alpha(or("alpha", 1.0))),
        "GELU" if args["approximate"] == "tanh" => Box::new(nn::GELU::new().tanh()),
        "GELU" => Box::new(nn::GELU::new()),
        "SiLU" => Box::new(nn::SiLU::new().inplace(flag(args, "inplace"))),
        "Mish" => Box::new(nn::Mish::new()),
        "Hardswish" => Box::new(nn::Hardswish::new()),
        "Hardsigmoid" => Box::new(nn::Hardsigmoid::new()),
        "Hardtanh" => Box::new(nn::Hardtanh::new().range(or("min_val", -1.0), or("max_val", 1.0))),
        "Softplus" => Box::new(nn::Softplus::new().beta(or("beta", 1.0)).threshold(or("threshold", 20.0))),
        "Softsign" => Box::new(nn::Softsign::new()),
        "Sigmoid" => Box::new(nn::Sigmoid::new()),
        "Tanh" => Box::new(nn::Tanh::new()),
        "LogSigmoid" => Box::new(nn::LogSigmoid::new()),
        "PReLU" => {
            Box::new(nn::PReLU::new().num_parameters(whole(&args["num_parameters"])).init(number(&args["init"])))
        }
        "Softmax" => Box::new(nn::Softmax::new(signed(&args["dim"]))),
        "LogSoftmax" => Box::new(nn::LogSoftmax::new(signed(&args["dim"]))),
        _ => return None,
    })
}

fn movement(layer: &str, args: &Value) -> Option<Built> {
    let pads = &args["padding"];
    let value = || args["value"].as_f64().unwrap_or(0.0);
    Some(match layer {
        "Flatten" => {
            Box::new(nn::Flatten::new().start_dim(signed(&args["start_dim"])).end_dim(signed(&args["end_dim"])))
        }
        "PixelShuffle" => Box::new(nn::PixelShuffle::new(whole(&args["upscale_factor"]))),
        "PixelUnshuffle" => Box::new(nn::PixelUnshuffle::new(whole(&args["downscale_factor"]))),
        "ChannelShuffle" => Box::new(nn::ChannelShuffle::new(whole(&args["groups"]))),
        "ZeroPad2d" => Box::new(nn::ZeroPad2d::new(pad_sides::<4>(pads))),
        "ConstantPad2d" => Box::new(nn::ConstantPad2d::new(pad_sides::<4>(pads), value())),
        "ReflectionPad2d" => Box::new(nn::ReflectionPad2d::new(pad_sides::<4>(pads))),
        "ReplicationPad2d" => Box::new(nn::ReplicationPad2d::new(pad_sides::<4>(pads))),
        "CircularPad2d" => Box::new(nn::CircularPad2d::new(pad_sides::<4>(pads))),
        "ConstantPad1d" => Box::new(nn::ConstantPad1d::new(pad_sides::<2>(pads), value())),
        "ReflectionPad1d" => Box::new(nn::ReflectionPad1d::new(pad_sides::<2>(pads))),
        "ReplicationPad1d" => Box::new(nn::ReplicationPad1d::new(pad_sides::<2>(pads))),
        "CircularPad1d" => Box::new(nn::CircularPad1d::new(pad_sides::<2>(pads))),
        "pad" => {
            let sides: Vec<isize> = args["pad"].as_array()?.iter().map(signed).collect();
            Box::new(nn::Pad::new(sides).mode(match args["mode"].as_str()? {
                "reflect" => PadMode::Reflect,
                "replicate" => PadMode::Replicate,
                "circular" => PadMode::Circular,
                _ => PadMode::Constant(value() as f32),
            }))
        }
        "Upsample" | "interpolate" => Box::new(upsample(args)),
        _ => return None,
    })
}

fn upsample(args: &Value) -> nn::Upsample {
    let mut layer = nn::Upsample::new().mode(args["mode"].as_str().unwrap_or("nearest"));
    if !args["size"].is_null() {
        layer = layer.size(sizes(&args["size"]));
    }
    layer = match &args["scale_factor"] {
        Value::Null => layer,
        Value::Array(pair) => layer.scale_factor((number(&pair[0]), number(&pair[1]))),
        one => layer.scale_factor(number(one)),
    };
    if let Some(align) = args["align_corners"].as_bool() {
        layer = layer.align_corners(align);
    }
    layer.antialias(flag(args, "antialias")).recompute_scale_factor(flag(args, "recompute_scale_factor"))
}

fn named_activation(name: &Value) -> Option<Built> {
    activation(name.as_str()?, &Value::Null)
}

fn other(layer: &str, args: &Value) -> Option<Built> {
    Some(match layer {
        "Linear" => {
            let linear = nn::Linear::new(whole(&args["in_features"]), whole(&args["out_features"]));
            Box::new(linear.bias(flag(args, "bias")))
        }
        "Identity" => Box::new(nn::Identity::new()),
        "Dropout" => Box::new(nn::Dropout::new(number(&args["p"]))),
        "Dropout2d" => Box::new(nn::Dropout2d::new(number(&args["p"]))),
        "DropBlock2d" => Box::new(nn::DropBlock2d::new(number(&args["p"]), whole(&args["block_size"]))),
        "StochasticDepth" => {
            let depth = nn::StochasticDepth::new(number(&args["p"]));
            Box::new(if args["mode"] == "batch" { depth.batch() } else { depth })
        }
        "SqueezeExcitation" => Box::new(
            nn::SqueezeExcitation::new(whole(&args["input_channels"]), whole(&args["squeeze_channels"]))
                .activation(named_activation(&args["activation"])?)
                .scale_activation(named_activation(&args["scale_activation"])?),
        ),
        "Conv2dNormActivation" => Box::new(conv_norm_activation(args)?),
        "Sequential" => Box::new(sequential()),
        _ => return None,
    })
}

fn conv_norm_activation(args: &Value) -> Option<nn::Conv2dNormActivation> {
    let (inputs, outputs) = (whole(&args["in_channels"]), whole(&args["out_channels"]));
    let mut block = nn::Conv2dNormActivation::new(inputs, outputs, sizes(&args["kernel_size"]))
        .stride(sizes(&args["stride"]))
        .groups(whole(&args["groups"]))
        .dilation(sizes(&args["dilation"]));
    if args["norm_layer"].is_null() {
        block = block.no_norm();
    }
    if let Some(bias) = args["bias"].as_bool() {
        block = block.bias(bias);
    }
    Some(match &args["activation_layer"] {
        Value::Null => block.no_activation(),
        name => block.activation(named_activation(name)?),
    })
}

/// The net of the fixture's `Sequential` cases, as their printed form says.
fn sequential() -> Sequential {
    striate::sequential![
        nn::Conv2d::new(2, 4, 3).padding(1).bias(false),
        nn::BatchNorm2d::new(4),
        nn::ReLU::new(),
        nn::MaxPool2d::new(2),
        nn::Flatten::new(),
        nn::Linear::new(24, 3),
    ]
}
