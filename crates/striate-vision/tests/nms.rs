//! Suppression against torchvision, by a fixture that `tools/ref/nms.py` makes: the same boxes in the same order.

use serde_json::Value;
use striate_vision::detection::{NmsOptions, ScoredBox, nms};

#[test]
fn the_boxes_that_torchvision_keeps_are_kept() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/nms.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(cases.len(), 40);
    for (index, case) in cases.iter().enumerate() {
        let row = |row: &Value| {
            let v: Vec<f64> = row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let xyxy = [v[0] as f32, v[1] as f32, v[2] as f32, v[3] as f32];
            ScoredBox { xyxy, class: v[4] as usize, score: v[5] as f32 }
        };
        let boxes: Vec<ScoredBox> = case["boxes"].as_array().unwrap().iter().map(row).collect();
        for (key, agnostic) in [("nms", true), ("batched", false)] {
            let places = case[key].as_array().unwrap().iter().map(|place| place.as_u64().unwrap() as usize);
            let theirs: Vec<ScoredBox> = places.map(|place| boxes[place]).collect();
            let iou = case["iou"].as_f64().unwrap() as f32;
            let options = NmsOptions { iou, agnostic, confidence: 0.0, ..NmsOptions::default() };
            assert_eq!(nms(&boxes, &options), theirs, "case {index}, {key}");
        }
    }
}
