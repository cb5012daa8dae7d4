//! The table of torchvision's weights against torchvision's own, by a fixture that `tools/ref/presets.py` makes.

use serde_json::Value;
use std::path::Path;
use striate_vision::models::{PresetReason, find_preset, imagenet_classes, weights_presets};
use striate_vision::transforms::ResizeTo;

#[test]
fn every_published_file_has_the_preprocessing_that_torchvision_gives_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/presets.json");
    let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(rows.len(), weights_presets().len());
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap();
        let size = |key: &str| row[key].as_u64().map(|n| n as usize);
        let floats = |key: &str| -> Vec<f32> {
            row[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
        };
        let file = text("file");
        let (preset, reason) = find_preset(text("model"), Some(Path::new(file))).unwrap();
        assert_eq!((reason, preset.weights), (PresetReason::FileName, text("weights")), "{file}");
        assert_eq!(Some(preset.is_default), row["is_default"].as_bool(), "{file}");
        let preprocess = preset.preprocess();
        assert_eq!(preprocess.resize, size("resize").map(ResizeTo::Shorter), "{file}");
        assert_eq!(preprocess.crop, size("crop").map(|side| [side, side]), "{file}");
        assert_eq!(preprocess.interpolation.to_string(), text("interpolation"), "{file}");
        // With these weights torchvision's two nets turn its statistics into halves themselves (`transform_input`); ours take halves.
        let statistics = match text("model") {
            "googlenet" | "inception_v3" => (vec![0.5; 3], vec![0.5; 3]),
            _ => (floats("mean"), floats("std")),
        };
        assert_eq!((preprocess.mean, preprocess.std), statistics, "{file}");
        if let Some(classes) = row["classes"].as_array() {
            assert!(classes.iter().map(|name| name.as_str().unwrap()).eq(imagenet_classes()));
        }
    }
}
