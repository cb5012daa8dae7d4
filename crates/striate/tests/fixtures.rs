//! The fixture files themselves: every one opens, and every case is whole.

mod common;

use common::{Case, fixture_folder, load_family, role_in_f64};
use safetensors::Dtype;

const FAMILIES: [&str; 11] = [
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
    assert!(bytes < 4 << 20, "the fixtures have grown to {bytes} bytes");
}

#[test]
fn every_case_is_whole() {
    for family in FAMILIES {
        let cases = load_family(family);
        assert!(!cases.is_empty(), "{family} has no cases");
        for case in &cases {
            assert!(!case.name.is_empty() && !case.layer.is_empty(), "{family}: a case without a name or layer");
            assert!(case.args.is_object(), "{family}/{}: arguments", case.name);
            for role in case.tensors.keys() {
                check_tensor(case, role);
            }
            if family.starts_with("layers_") {
                check_layer_case(case);
            }
        }
    }
}

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
    assert!(finite, "{at} is not finite");
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
    let values = case.f32("y").1;
    case.check_close("y", &case.shape("y"), &values, 1e-7).unwrap();
}
