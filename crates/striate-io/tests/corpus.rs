//! What fuzzing has found worth keeping, once more: every reader on every input of `fuzz/corpus`.

#[path = "../../../fuzz/src/harness.rs"]
mod harness;

use std::path::Path;

#[test]
fn the_corpus_of_each_target_is_read_without_a_finding() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, target) in harness::TARGETS {
        assert!(harness::find(name).is_some());
        let inputs: Vec<_> = std::fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() >= 10, "{name} has {} inputs", inputs.len());
        for input in inputs {
            let data = std::fs::read(&input).unwrap();
            let read = std::panic::catch_unwind(|| target(&data));
            assert!(read.is_ok(), "{name}: {}", input.display());
        }
    }
}
