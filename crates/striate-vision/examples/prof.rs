//! x
use striate_vision::bench::*;
use striate_graph::*;
use striate_nn::optim::SGD;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n = |i: usize, d: usize| args.get(i).and_then(|s| s.parse().ok()).unwrap_or(d);
    let (batch, side, c, k, t) = (n(2, 8), n(3, 224), n(4, 3), n(5, 10), n(6, 1));
    let net = striate_vision::models::find_model(&args[1]).unwrap().build([c, side, side], k, 0).unwrap();
    let opt = SGD::new(0.01).momentum(0.9).over(net.parameters());
    let graph = training_graph(&*net, &opt, [batch, c, side, side]).unwrap();
    let program = Program::compile(&graph, &CompileOptions { threads: t, ..Default::default() }).unwrap();
    let mut s = Session::with_team(program, std::sync::Arc::new(machine::Team::new(t)));
    let x = Array::full([batch, c, side, side], 0.5f32);
    let y = Array::from_vec([batch], vec![1i64; batch]).unwrap();
    let run = |s: &mut Session| { let h = opt.hyper_inputs(); let mut i = vec![("images", &x), ("targets", &y)]; i.extend(h.iter().map(|(n, a)| (n.as_str(), a))); s.run(&i).unwrap(); };
    run(&mut s);
    s.set_profiling(true);
    run(&mut s); run(&mut s);
    let mut by: std::collections::BTreeMap<String, (f64, usize, f64)> = Default::default();
    for st in s.profile().unwrap().steps() { let e = by.entry(st.kernel.clone()).or_default(); e.0 += st.mean().as_secs_f64() * 1e3; e.1 += 1; e.2 += st.flops as f64; }
    let mut v: Vec<_> = by.into_iter().collect(); v.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for (k, (ms, n, f)) in v.iter().take(18) { println!("{ms:9.2} ms {n:4} {:8.1} GF/s {k}", f / ms / 1e6); }
}
