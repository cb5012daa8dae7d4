//! Pooling of regions, samples at a grid, and what depends on values, against PyTorch's and torchvision's numbers.

use striate_graph::*;

/// `sin(scale i)` (or the cosine) of the given shape.
fn wave(shape: &[usize], function: fn(f64) -> f64, scale: f64, factor: f64) -> Array {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| function(i as f64 * scale) * factor).collect();
    Array::from_f64(shape, &values, DType::F64).unwrap()
}

fn regions() -> (Array, Array) {
    let regions = vec![0f64, 0.5, 7.3, 8.1, -4.0, 2.2, 3.0, 20.0, 5.1, 5.2, 5.3, 5.4, 9.0, 9.0, 1.0, 1.0];
    (Array::from_vec([4, 4], regions).unwrap(), Array::from_vec([4], vec![1i64, 0, 1, 0]).unwrap())
}

fn close(got: &[f64], expected: &[f64], limit: f64) -> bool {
    got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| (g - e).abs() <= limit * e.abs().max(1.0))
}

/// `torchvision.ops.roi_align(x, rois, (2, 3), 0.5, …)`: every seventh number, then the sum of all.
#[test]
fn regions_are_pooled_as_torchvision_does() {
    let expected: [(bool, usize, [f64; 8]); 4] = [
        (true, 0, [0.02072856, -0.096175107, -0.292086768, 0.0, 0.727491049, -0.304861181, 0.0, 2.255928245]),
        (true, 2, [0.02072856, -0.096175107, -0.330882368, 0.0, 0.727491049, -0.304861181, -0.236404591, 2.390053413]),
        (false, 0, [0.275299303, -0.293432405, -0.121239159, 0.0, -0.210029557, 0.48658581, -0.216082197, 4.23425062]),
        (false, 2, [0.275299303, -0.293432405, -0.26115905, 0.0, -0.208231051, 0.48658581, -0.216082197, 3.784664343]),
    ];
    let mut failures = Vec::new();
    for (aligned, sampling_ratio, expected) in expected {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [2, 2, 5, 6], DType::F64);
        let (boxes, batch) = regions();
        let (boxes, batch) = (trace.constant(boxes), trace.constant(batch));
        let spec = RoiAlignSpec { out: [2, 3], scale: 0.5, sampling_ratio, aligned, max: false };
        let y = x.roi_align(&boxes, &batch, spec);
        let graph = trace.finish(&[("y", &y)]).unwrap();
        let x = wave(&[2, 2, 5, 6], f64::sin, 0.7, 1.0);
        let y = interpret(&graph, &[("x", x)], &RunOptions::default()).unwrap()[0].to_f64_vec();
        let mut got: Vec<f64> = y.iter().step_by(7).copied().collect();
        got.push(y.iter().sum());
        if !close(&got, &expected, 2e-8) {
            failures.push(format!("aligned {aligned}, {sampling_ratio} samples: {got:?}, not {expected:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_compiled_program_pools_regions_as_the_interpreter_does() {
    for (channels, sampling_ratio, max) in [(3, 0, false), (37, 2, false), (5, 0, true)] {
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [2, channels, 5, 6], DType::F32);
        let (boxes, batch) = regions();
        let boxes = trace.constant(boxes.cast(DType::F32));
        let maps = trace.input("batch", [4], DType::I64);
        let spec = RoiAlignSpec { out: [3, 3], scale: 0.5, sampling_ratio, aligned: false, max };
        let y = x.relu().roi_align(&boxes, &maps, spec).affine(2.0, 0.0);
        let graph = trace.finish(&[("y", &y)]).unwrap();
        let x = wave(&[2, channels, 5, 6], f64::sin, 0.7, 1.0).cast(DType::F32);
        let inputs = [("x", x), ("batch", batch)];
        let expected = interpret(&graph, &inputs, &RunOptions::default()).unwrap().remove(0);
        let program = Program::compile(&graph, &CompileOptions::default()).unwrap();
        let given: Vec<(&str, &Array)> = inputs.iter().map(|(name, array)| (*name, array)).collect();
        let mut session = Session::new(program);
        let got = session.run(&given).unwrap().to_vec().remove(0);
        assert!(close(&got.to_f64_vec(), &expected.to_f64_vec(), 1e-6), "{channels} channels");
        let nowhere = Array::from_vec([4], vec![0i64, 0, 2, 0]).unwrap();
        let error = session.run(&[given[0], ("batch", &nowhere)]).unwrap_err().to_string();
        assert!(error.contains("the map of region 2"), "{error}");
    }
}

/// `F.grid_sample(x, grid, mode, padding, align_corners)`, weighted by `sin(0.9 i)` and summed; then the sums of `|dx x|`, `dgrid grid`
/// and `|dgrid|`.
#[test]
fn samples_and_their_gradients_are_those_of_torch() {
    use SampleMode::*;
    use SamplePadding::*;
    let expected: [(SampleMode, SamplePadding, bool, [f64; 4]); 18] = [
        (Linear, Zeros, false, [0.308729409, 0.551890955, -3.178585895, 3.213050081]),
        (Linear, Zeros, true, [0.814665720, 1.950064364, -0.218373985, 5.310400941]),
        (Linear, Border, false, [0.722744847, 9.687754842, 1.330298940, 13.059784288]),
        (Linear, Border, true, [0.314861274, 9.908172667, 1.579225992, 13.387056478]),
        (Linear, Reflection, false, [2.289715315, 9.396246177, 2.671614903, 21.790256808]),
        (Linear, Reflection, true, [2.269860644, 8.666588881, -7.390099354, 21.022668109]),
        (Nearest, Zeros, false, [0.0, 0.0, 0.0, 0.0]),
        (Nearest, Zeros, true, [0.989653259, 1.807488693, 0.0, 0.0]),
        (Nearest, Border, false, [-0.397849781, 10.365215807, 0.0, 0.0]),
        (Nearest, Border, true, [-0.159478096, 9.899895007, 0.0, 0.0]),
        (Nearest, Reflection, false, [1.882376274, 9.096794474, 0.0, 0.0]),
        (Nearest, Reflection, true, [2.118889221, 7.188972921, 0.0, 0.0]),
        (Cubic, Zeros, false, [0.311897200, 1.038244354, -4.127828418, 4.577026792]),
        (Cubic, Zeros, true, [0.892272093, 3.156435175, -0.035919965, 8.867055771]),
        (Cubic, Border, false, [0.757232885, 11.731967227, 2.080873997, 14.440994761]),
        (Cubic, Border, true, [0.366607133, 11.984072952, 2.381660135, 14.581485148]),
        (Cubic, Reflection, false, [2.472617059, 12.834722942, -0.683134965, 22.644280158]),
        (Cubic, Reflection, true, [2.663129326, 11.731457381, -3.323912339, 21.287066749]),
    ];
    let (x_values, grid_values) = (wave(&[2, 2, 5, 6], f64::sin, 0.7, 1.0), wave(&[2, 3, 2, 2], f64::cos, 1.3, 1.6));
    let weights = wave(&[2, 2, 3, 2], f64::sin, 0.9, 1.0);
    let mut failures = Vec::new();
    for (mode, padding, align_corners, expected) in expected {
        let trace = Trace::new(Mode::Train);
        let (x, grid) = (trace.input("x", [2, 2, 5, 6], DType::F64), trace.input("grid", [2, 3, 2, 2], DType::F64));
        let y = x.grid_sample(&grid, GridSampleSpec { mode, padding, align_corners });
        let loss = (&y * &trace.constant(weights.clone())).sum_all();
        let gradients = gradients(&loss, &[&x, &grid]).unwrap();
        let graph = trace.finish(&[("y", &loss), ("dx", &gradients[0]), ("dgrid", &gradients[1])]).unwrap();
        let inputs = [("x", x_values.clone()), ("grid", grid_values.clone())];
        let found: Vec<Vec<f64>> =
            interpret(&graph, &inputs, &RunOptions::default()).unwrap().iter().map(Array::to_f64_vec).collect();
        let product = |a: &[f64], b: &Array| a.iter().zip(b.to_f64_vec()).map(|(a, b)| a * b).collect::<Vec<f64>>();
        let of_x: f64 = product(&found[1], &x_values).iter().map(|v| v.abs()).sum();
        let of_grid: f64 = product(&found[2], &grid_values).iter().sum();
        let got = [found[0][0], of_x, of_grid, found[2].iter().map(|v| v.abs()).sum()];
        if !close(&got, &expected, 2e-8) {
            failures.push(format!("{mode:?} {padding:?} {align_corners}: {got:?}, not {expected:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn overlapping_boxes_are_dropped_class_by_class() {
    let boxes = vec![0.0f32, 0.0, 1.0, 1.0, 0.0, 0.1, 1.0, 1.1, 0.0, -0.1, 1.0, 0.9, 0.0, 10.0, 1.0, 11.0];
    let boxes = Array::from_vec([1, 4, 4], boxes).unwrap();
    let scores = Array::from_vec([1, 2, 4], vec![0.9f32, 0.75, 0.6, 0.95, 0.1, 0.2, 0.3, f32::NAN]).unwrap();
    let mut spec = NmsSpec { center: false, most: 3, iou_threshold: 0.5, score_threshold: None };
    let kept = |spec: &NmsSpec| non_max_suppression(&boxes, &scores, spec).unwrap();
    assert_eq!(kept(&spec).as_slice::<i64>().unwrap(), &[0, 0, 3, 0, 0, 0, 0, 1, 2]);
    spec.score_threshold = Some(0.92);
    assert_eq!(kept(&spec).as_slice::<i64>().unwrap(), &[0, 0, 3]);
    spec.most = 0;
    assert_eq!(kept(&spec).shape().dims(), &[0, 3]);
    let error = non_max_suppression(&scores, &scores, &spec).unwrap_err().to_string();
    assert!(error.contains("[images, classes, boxes]"), "{error}");
}
