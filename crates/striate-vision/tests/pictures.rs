//! Transforms and decoding against PIL and torchvision, by fixtures that `tools/ref/pictures.py` makes.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use serde_json::Value;
use striate_vision::data::{DataError, Image};
use striate_vision::transforms::*;

struct Case {
    name: String,
    op: String,
    args: Vec<Value>,
    x: (Vec<usize>, Vec<u8>),
    y: Option<(Vec<usize>, Vec<u8>)>,
}

impl Case {
    fn number(&self, i: usize) -> f64 {
        self.args[i].as_f64().unwrap()
    }
    fn size(&self, i: usize) -> usize {
        self.args[i].as_u64().unwrap() as usize
    }
    fn mode(&self) -> Interpolation {
        serde_json::from_value(self.args.last().unwrap().clone()).unwrap()
    }
}

fn load() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pictures.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&header.metadata().as_ref().unwrap()["cases"]).unwrap();
    let tensor = |key: &Value| {
        key.as_str().map(|key| {
            let view = file.tensor(key).unwrap();
            (view.shape().to_vec(), view.data().to_vec())
        })
    };
    cases
        .iter()
        .map(|c| Case {
            name: c["name"].as_str().unwrap().into(),
            op: c["op"].as_str().unwrap().into(),
            args: c["args"].as_array().unwrap().clone(),
            x: tensor(&c["x"]).unwrap(),
            y: tensor(&c["y"]),
        })
        .collect()
}

fn picture((shape, data): &(Vec<usize>, Vec<u8>)) -> Image {
    Image::new(shape[1], shape[0], shape[2], data.clone()).unwrap()
}

fn run(case: &Case) -> Image {
    let mut image = picture(&case.x);
    let (mut scratch, mut draws) = (Scratch::default(), Draws::new(0, "test", 0, 0));
    let center = [image.width as f64 / 2.0, image.height as f64 / 2.0];
    match case.op.as_str() {
        "resize" => resize(&mut image, case.size(1), case.size(0), case.mode(), &mut scratch),
        "shorter" => {
            let transform = Resize::new(case.size(0)).interpolation(case.mode());
            transform.apply(&mut image, &mut draws, &mut scratch).unwrap();
        }
        "center_crop" => CenterCrop::new(case.size(0)).apply(&mut image, &mut draws, &mut scratch).unwrap(),
        "pad" => {
            let mode = match case.args[4].as_str().unwrap() {
                "constant" => PaddingMode::Constant,
                "edge" => PaddingMode::Edge,
                "reflect" => PaddingMode::Reflect,
                _ => PaddingMode::Symmetric,
            };
            let pad = Pad { padding: std::array::from_fn(|i| case.size(i)), fill: [9; 3], mode };
            pad.apply(&mut image, &mut draws, &mut scratch).unwrap();
        }
        "hflip" => horizontal_flip(&mut image),
        "vflip" => vertical_flip(&mut image),
        "rotate" => {
            rotate(&mut image, case.number(0), case.args[1].as_bool().unwrap(), case.mode(), [50; 3], &mut scratch)
        }
        "affine" => {
            let n = |i| case.number(i);
            let matrix = affine_matrix(center, n(0), [n(1), n(2)], n(3), [n(4), n(5)]);
            affine(&mut image, &matrix, case.mode(), [50; 3], &mut scratch);
        }
        "shear_origin" => {
            let matrix = affine_matrix([0.0; 2], 0.0, [0.0; 2], 1.0, [case.number(0), 0.0]);
            affine(&mut image, &matrix, Interpolation::Nearest, [0; 3], &mut scratch);
        }
        "brightness" => adjust_brightness(&mut image, case.number(0)),
        "contrast" => adjust_contrast(&mut image, case.number(0)),
        "saturation" => adjust_saturation(&mut image, case.number(0)),
        "sharpness" => adjust_sharpness(&mut image, case.number(0), &mut scratch),
        "hue" => adjust_hue(&mut image, case.number(0)),
        "posterize" => posterize(&mut image, case.size(0) as u32),
        "solarize" => solarize(&mut image, case.number(0)),
        "autocontrast" => autocontrast(&mut image),
        "equalize" => equalize(&mut image),
        "grayscale" => Grayscale { channels: 1 }.apply(&mut image, &mut draws, &mut scratch).unwrap(),
        other => panic!("no such op: {other}"),
    }
    image
}

/// (differing bytes, largest difference)
fn difference(a: &Image, b: &Image) -> (usize, u8) {
    let pairs = a.data.iter().zip(&b.data).map(|(a, b)| a.abs_diff(*b));
    (pairs.clone().filter(|d| *d > 0).count(), pairs.max().unwrap_or(0))
}

#[test]
fn transforms_give_pils_bytes() {
    let mut wrong = BTreeMap::<String, Vec<String>>::new();
    let mut seen = 0;
    for case in load().iter().filter(|c| !matches!(c.op.as_str(), "decode" | "refuse")) {
        let (got, expected) = (run(case), picture(case.y.as_ref().unwrap()));
        seen += 1;
        if got != expected {
            let what = if (got.width, got.height, got.channels) != (expected.width, expected.height, expected.channels)
            {
                format!("{}x{}x{} for {:?}", got.height, got.width, got.channels, case.y.as_ref().unwrap().0)
            } else {
                let (count, most) = difference(&got, &expected);
                format!("{count} of {} bytes, by up to {most}", got.data.len())
            };
            wrong.entry(case.op.clone()).or_default().push(format!("{} {:?}: {what}", case.name, case.args));
        }
    }
    assert!(seen > 200, "only {seen} cases");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn decoding_gives_pils_pixels() {
    let mut wrong = Vec::new();
    for case in load().iter().filter(|c| c.op == "decode") {
        match Image::decode(&case.x.1, &case.name) {
            Err(error) => wrong.push(error.to_string()),
            Ok(got) => {
                let expected = picture(case.y.as_ref().unwrap());
                let (count, most) = difference(&got, &expected);
                let same_shape =
                    (got.width, got.height, got.channels) == (expected.width, expected.height, expected.channels);
                if !same_shape || f64::from(most) > case.number(0) {
                    wrong.push(format!("{}: {count} bytes differ, by up to {most}; {same_shape}", case.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_no_sound_picture_is_refused_with_its_name() {
    let mut wrong = Vec::new();
    for case in load().iter().filter(|c| c.op == "refuse") {
        match Image::decode(&case.x.1, &case.name) {
            Ok(image) => wrong.push(format!("{}: decoded to {}x{}", case.name, image.width, image.height)),
            Err(error @ DataError::Picture { .. }) => {
                println!("{error}");
                assert!(error.to_string().starts_with(&case.name) && !error.is_io(), "{error}");
            }
            Err(error) => wrong.push(format!("{}: not typed: {error}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
