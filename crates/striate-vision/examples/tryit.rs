//! x
use striate_vision::bench::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n = |i: usize, d: usize| args.get(i).and_then(|s| s.parse().ok()).unwrap_or(d);
    let b = ModelBench {
        name: args[2].clone(),
        batch: n(3, 1),
        side: n(4, 224),
        channels: n(5, 3),
        classes: n(6, 1000),
        threads: n(7, 1),
        seconds: 2.0,
        exact: false,
    };
    if args[1] == "infer" {
        println!("{:?}", bench_infer(&b).unwrap());
    } else {
        println!("{:?}", bench_train(&b).unwrap());
    }
}
