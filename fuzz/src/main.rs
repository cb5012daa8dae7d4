//! One binary for all targets: `STRIATE_FUZZ=pickle fuzz corpus/pickle`. See `README.md`.
#![no_main]

mod harness;

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static TARGET: LazyLock<harness::Target> = LazyLock::new(|| {
    let name = std::env::var("STRIATE_FUZZ").expect("STRIATE_FUZZ names the target");
    harness::find(&name).expect("STRIATE_FUZZ is one of the targets of harness.rs")
});

fuzz_target!(|data: &[u8]| (*TARGET)(data));
