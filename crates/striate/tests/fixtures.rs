//! The fixture files themselves: every one opens, and every case is whole.

mod common;

use common::{Case, fixture_folder, formula, load_family, role_in_f64};
use safetensors::Dtype;
use serde_json::Value;

const FAMILIES: [&str; 14] = [
    "detectors",
    "init_stats",
    "layers_activation",
    "layers_conv",
    "layers_misc",
    "layers_norm",
    "layers_pool",
    "layers_resample",
    "losses",
    "optimizers",
    "printing",
    "schedules",
    "trajectories",
    "zoo",
];

#[test]
fn every_file_is_known_and_the_folder_is_small() {
    let mut found = Vec::new();
    let mut bytes = 0;
    for entry in std::fs::read_dir(fixture_folder()).unwrap() {
        let entry = entry.unwrap();
        bytes += entry.metadata().unwrap().len();
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            found.push(path.file_stem().unwrap().to_str().unwrap().to_string());
        }
    }
    found.sort();
    assert_eq!(found, FAMILIES);
    assert!(bytes < 5_000_000, "the fixtures have grown to {bytes} bytes");
}

#[test]
fn every_case_is_whole() {
    for family in FAMILIES {
        let cases = load_family(family);
        assert!(!cases.is_empty(), "{family} has no cases");
        for case in &cases {
            let at = format!("{family}/{}", case.name);
            assert!(!case.name.is_empty() && !case.layer.is_empty(), "{at}: a name and a layer");
            assert!(case.args.is_object(), "{at}: arguments");
            case.tensors.keys().for_each(|role| check_tensor(case, role));
            match family {
                "init_stats" => assert!(case.has("value") || case.json["expected"].is_object(), "{at}"),
                "optimizers" => check_optimizer_case(case),
                "printing" => {
                    assert!(case.json["text"].is_string() && (case.layer == "module" || case.has("value")), "{at}")
                }
                "schedules" => assert_eq!(case.shape("lr")[0], 40, "{at}"),
                "detectors" | "trajectories" | "zoo" => {}
                _ => check_layer_case(case),
            }
        }
    }
}

/// Printing has cases of infinity and NaN; nothing else may.
fn check_tensor(case: &Case, role: &str) {
    // How infinity and NaN print is part of printing.
    if case.family == "printing" {
        return;
    }
    let at = format!("{}/{}: {role}", case.family, case.name);
    let finite = match case.stored(role).dtype {
        Dtype::F32 => case.f32(role).1.iter().all(|v| v.is_finite()),
        Dtype::F64 => case.f64(role).1.iter().all(|v| v.is_finite()),
        _ => true,
    };
    assert!(finite || case.family == "printing", "{at} is not finite");
}

fn check_layer_case(case: &Case) {
    let at = format!("{}/{}", case.family, case.name);
    let same = |a: &str, b: &str| assert_eq!(case.shape(a), case.shape(b), "{at}: shapes of {a} and {b}");
    assert!(case.mode == "train" || case.mode == "eval", "{at}: mode {}", case.mode);
    same("y", "dy");
    same("x", "dx");
    for role in ["y", "dx"] {
        same(role, &role_in_f64(role));
    }
    for name in case.names_under("param/") {
        same(&format!("param/{name}"), &format!("grad/{name}"));
        same(&format!("param/{name}"), &format!("grad64/{name}"));
    }
    for name in case.names_under("buffer_after/") {
        same(&format!("buffer/{name}"), &format!("buffer_after/{name}"));
    }
    if case.has("dtarget") {
        same("target", "dtarget");
    }
}

fn check_optimizer_case(case: &Case) {
    for name in case.names_under("param/") {
        let mut shape = vec![6];
        shape.extend(case.shape(&format!("param/{name}")));
        for role in ["grad", "after", "after64"] {
            assert_eq!(case.shape(&format!("{role}/{name}")), shape, "{}: {role}/{name}", case.name);
        }
    }
}

#[test]
fn formulas_give_the_bits_of_the_python_side() {
    for case in load_family("trajectories") {
        let text = |v: &Value| v.as_str().unwrap().to_string();
        let sizes = |v: &Value| -> Vec<usize> { serde_json::from_value(v.clone()).unwrap() };
        let names: Vec<String> = case.json["names"].as_array().unwrap().iter().map(text).collect();
        let mut sampled = 0;
        for (i, name) in names.iter().enumerate() {
            let shape = sizes(&case.json["shapes"][i]);
            let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
            let normed = names.contains(&format!("{layer}.running_mean"));
            let values = formula::initial(name, &shape, normed);
            assert_eq!(formula::bit_checksum(&values), text(&case.json["checksums"][i]), "{}: {name}", case.name);
            sampled += formula::sample_indices(name, values.len()).len();
        }
        assert_eq!(case.shape("after64"), [2, sampled], "{}", case.name);
        let input = sizes(&case.json["input_shape"]);
        for step in 0..=10 {
            let start = case.json["first_step"].as_u64().unwrap();
            let name = if step < 10 { (start + step as u64).to_string() } else { "eval".to_string() };
            let images = formula::images(&name, input.iter().product());
            assert_eq!(formula::bit_checksum(&images), text(&case.json["input_checksums"][step]), "pictures of {name}");
            if step < 10 {
                let want: Vec<i64> = serde_json::from_value(case.json["labels"][step].clone()).unwrap();
                assert_eq!(formula::labels(&name, input[0]), want, "labels of {name}");
            }
        }
    }
}

#[test]
fn closeness_is_judged_against_float64() {
    let cases = load_family("layers_conv");
    let case = cases.iter().find(|c| c.name == "conv2d_course").unwrap();
    let (shape, torch) = case.f32("y");
    case.check_close("y", &shape, &torch, 1e-6).unwrap();
    let change = |by: f32| {
        let mut values = torch.clone();
        values[5] += by;
        case.check_close("y", &shape, &values, 1e-5)
    };
    assert!(change(1e-3).unwrap_err().contains("worst at 5"));
    assert!(change(f32::NAN).is_err());
    assert!(case.check_close("y", &shape[1..], &torch, 1e-5).unwrap_err().contains("shape"));
    case.check_close("grad/weight", &case.shape("grad/weight"), &case.f32("grad/weight").1, 1e-6).unwrap();
}
