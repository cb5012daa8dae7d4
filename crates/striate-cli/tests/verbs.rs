//! Every other verb as a process: what it prints, what it returns, what it says of bad input.

mod common;

use common::{Set, run, tiny_set};
use serde_json::Value;

/// A picture file of ours: a binary PNG is made by striate's own dependencies elsewhere; a BMP needs no compression.
fn write_bmp(path: &std::path::Path, side: u8, shade: impl Fn(u8, u8) -> u8) {
    let stride = (usize::from(side) * 3).next_multiple_of(4);
    let size = 54 + stride * usize::from(side);
    let mut bytes = vec![0; size];
    bytes[..2].copy_from_slice(b"BM");
    let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(2, size as u32);
    put(10, 54);
    put(14, 40);
    put(18, side.into());
    put(22, side.into());
    put(26, 1 | 24 << 16);
    for y in 0..side {
        for x in 0..side {
            let at = 54 + usize::from(y) * stride + usize::from(x) * 3;
            bytes[at..at + 3].fill(shade(x, y));
        }
    }
    std::fs::write(path, bytes).unwrap();
}

/// A trained net in the set's project.
fn trained(set: &Set) -> String {
    let args = ["train", set.data(), "--project", set.project(), "--name", "net", "--plain", "--epochs", "1"];
    run(&[&args[..], &["--model", "lenet", "--batch", "16", "--threads", "2"]].concat()).ok();
    set.folder("net").to_str().unwrap().to_owned()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn a_trained_net_is_judged_and_asked() {
    let set = tiny_set();
    let net = trained(&set);
    let metrics: Value =
        serde_json::from_str(&std::fs::read_to_string(set.folder("net").join("metrics.json")).unwrap()).unwrap();
    let judged = lines(&run(&["val", &net, set.data(), "--json"]).ok().stdout);
    let last = judged.last().unwrap();
    for key in ["split", "top1", "top5"] {
        assert_eq!(last[key], metrics[key], "{key}");
    }
    // The mean over other batches is rounded otherwise.
    assert!((last["loss"].as_f64().unwrap() - metrics["loss"].as_f64().unwrap()).abs() < 1e-12);
    let folder = set.root().join("pictures");
    std::fs::create_dir(&folder).unwrap();
    for (index, name) in ["a.bmp", "b.bmp", "c.bmp"].iter().enumerate() {
        write_bmp(&folder.join(name), 20 + index as u8, |x, y| x.wrapping_mul(9) ^ y.wrapping_mul(index as u8 + 1));
    }
    let together = lines(&run(&["predict", &net, folder.to_str().unwrap(), "--json"]).ok().stdout);
    assert_eq!(together.len(), 3);
    for told in &together {
        let alone =
            lines(&run(&["predict", &net, told["path"].as_str().unwrap(), "--json", "--threads", "3"]).ok().stdout);
        assert_eq!(alone[0]["classes"], told["classes"], "{}", told["path"]);
        let scores: Vec<f64> =
            told["classes"].as_array().unwrap().iter().map(|c| c["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().sum::<f64>() <= 1.0 + 1e-6, "{scores:?}");
    }
    std::fs::write(folder.join("broken.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    let with_broken = run(&["predict", &net, folder.to_str().unwrap(), "--json"]);
    with_broken.fails(3, &["broken.png"]);
    assert_eq!(lines(&with_broken.stdout).len(), 3, "the others are told all the same");
}

#[test]
fn arrays_go_in_and_out() {
    let set = tiny_set();
    let net = trained(&set);
    let folder = set.root().join("arrays");
    std::fs::create_dir(&folder).unwrap();
    let loaded = striate::vision::models::load_model(&set.folder("net").join("weights/best.safetensors")).unwrap();
    let [c, h, w] = loaded.info.input;
    let values: Vec<f32> = (0..3 * c * h * w).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let x = striate::graph::Array::from_vec([3, c, h, w], values).unwrap();
    let (input, output) = (folder.join("x.npy"), folder.join("out"));
    striate::io::write_npy(&input, &x).unwrap();
    let (input, output_text) = (input.to_str().unwrap(), output.to_str().unwrap());
    run(&["run", &net, "--input", input, "--output", output_text, "--threads", "2"]).ok();
    let first = striate::io::read_npy(&output.join("0.npy")).unwrap();
    assert_eq!(first.shape().dims()[0], 3);
    let want = loaded.net.apply(&x).unwrap();
    let close = first.to_f64_vec().iter().zip(want.to_f64_vec()).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()));
    assert!(close, "{first}\n{want}");
    let wrong = folder.join("wrong.npy");
    striate::io::write_npy(&wrong, &striate::graph::Array::zeros([2, c + 1, h, w], striate::graph::DType::F32))
        .unwrap();
    run(&["run", &net, "--input", wrong.to_str().unwrap(), "--output", output_text]).fails(2, &["channels"]);
    run(&["run", &net, "--input", "nowhere.npy", "--output", output_text]).fails(5, &["nowhere.npy"]);
}

#[test]
fn nets_are_listed_shown_and_measured() {
    let models = lines(&run(&["models", "--json"]).ok().stdout);
    let found = models.iter().flat_map(|m| m.as_array().cloned().unwrap_or_else(|| vec![m.clone()]));
    let resnet = found.into_iter().find(|m| m["name"] == "resnet18").expect("resnet18 is listed");
    assert_eq!(resnet["parameters"], 11_689_512);
    let table = run(&["inspect", "lenet"]).ok().stdout;
    assert!(table.contains("conv2") && table.contains("421,642"), "{table}");
    let profile = lines(&run(&["inspect", "lenet", "--profile", "--json"]).ok().stdout);
    assert!(!profile.is_empty());
    let infer = ["bench", "infer", "lenet", "--batch", "2", "--imgsz", "28", "--channels", "1", "--threads", "3"];
    let told = lines(&run(&[&infer[..], &["--seconds", "0.05", "--json"]].concat()).ok().stdout);
    assert!(told[0]["median_ms"].as_f64().unwrap() > 0.0 && told[0]["images_per_s"].as_f64().unwrap() > 0.0);
    let train = ["bench", "train", "small", "--batch", "4", "--imgsz", "32", "--channels", "3", "--classes", "7"];
    let told = lines(&run(&[&train[..], &["--seconds", "0.05", "--json"]].concat()).ok().stdout);
    assert!(told[0]["ms_per_step"].as_f64().unwrap() > 0.0);
    for pass in ["fwd", "bwd-data", "bwd-weight"] {
        let conv = [
            "bench",
            "conv",
            "--input",
            "2,6,9,8",
            "--weight",
            "4,3,3,2",
            "--stride",
            "2,1",
            "--padding",
            "1",
            "--groups",
            "2",
        ];
        let told = lines(&run(&[&conv[..], &["--pass", pass, "--seconds", "0.02", "--json"]].concat()).ok().stdout);
        let (gflops, percent) = (told[0]["gflops"].as_f64().unwrap(), told[0]["percent_of_peak"].as_f64().unwrap());
        assert!(gflops > 0.0 && percent > 0.0 && told[0]["kernel"].is_string(), "{pass}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_exit_code() {
    run(&["inspect", "resnet81"]).fails(2, &["resnet81", "did you mean"]);
    run(&["bench", "infer", "resnet18", "--imgsz", "0"]).fails(2, &[]);
    run(&["bench", "conv", "--input", "1,3,2,2", "--weight", "4,3,7,7"]).fails(2, &["7"]);
    run(&["bench", "conv", "--input", "1,3,8,8", "--weight", "4,2,3,3"]).fails(2, &[]);
    run(&["predict", "nothing.safetensors", "x.png"]).fails(2, &["nothing.safetensors"]);
    run(&["nonsense"]).fails(2, &["nonsense"]);
    let set = tiny_set();
    let empty = set.root().join("set");
    std::fs::create_dir_all(empty.join("cats")).unwrap();
    std::fs::create_dir_all(empty.join("dogs")).unwrap();
    write_bmp(&empty.join("cats/1.bmp"), 8, |x, _| x);
    let checked = run(&["data", "check", empty.to_str().unwrap(), "--json"]);
    checked.fails(3, &[]);
    assert!(lines(&checked.stdout).iter().all(|line| line["kind"].is_string() && line["message"].is_string()));
}

#[test]
fn completions_and_version() {
    assert!(run(&["completions", "bash"]).ok().stdout.contains("striate"));
    let version = run(&["--version"]).ok().stdout;
    assert!(version.starts_with("striate ") && version.contains("thread"), "{version}");
}

/// Serves one body for every request, `count` times, on a port of this machine.
fn serve(body: Vec<u8>, count: usize) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/sets", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).unwrap();
        }
    });
    address
}

#[test]
fn a_download_that_is_not_the_set_is_refused_and_leaves_no_set() {
    let set = tiny_set();
    let cache = set.root().join("cache");
    let from = serve(b"not the pictures".to_vec(), 1);
    let fetch = |from: &str| {
        let args = ["data", "fetch", "cifar10", "--from", from];
        common::run_with(&args, &[("STRIATE_CACHE", cache.to_str().unwrap())])
    };
    fetch(&from).fails(3, &["cifar-10-binary.tar.gz", "SHA-256"]);
    assert!(!cache.join("cifar10").exists());
    // Nobody listens any more.
    fetch(&from).fails(5, &["cifar-10-binary.tar.gz", "--from"]);
    run(&["data", "fetch", "cifar11"]).fails(2, &["did you mean `cifar10`"]);
}

#[test]
fn views_and_other_preprocessing_change_answers_and_are_said() {
    let set = tiny_set();
    let net = trained(&set);
    let picture = set.root().join("a.bmp");
    write_bmp(&picture, 30, |x, y| x.wrapping_mul(9) ^ y.wrapping_mul(3));
    let picture = picture.to_str().unwrap();
    let score = |more: &[&str]| {
        let done = run(&[&["predict", &net, picture, "--json"], more].concat()).ok();
        (lines(&done.stdout)[0]["classes"][0]["score"].as_f64().unwrap(), done.stderr)
    };
    let (plain, said) = score(&[]);
    assert!(said.contains("the weights file says") && said.contains("12x12"), "{said}");
    let (flipped, _) = score(&["--tta"]);
    let (cropped, said) = score(&["--tta=all", "--resize", "16", "--crop", "12"]);
    assert!(said.contains("flags"), "{said}");
    assert!(plain != flipped && flipped != cropped);
    assert!([plain, flipped, cropped].iter().all(|score| (1.0 / 3.0 - 1e-9..=1.0).contains(score)));
    run(&["predict", &net, picture, "--tta=crops"]).fails(2, &["--tta crops", "--resize"]);
    run(&["predict", &net, picture, "--tta=flop"]).fails(2, &["flip"]);
    run(&["predict", &net, picture, "--mean", "0.1,0.2"]).fails(2, &["mean"]);
    run(&["predict", &net, picture, "--crop", "0"]).fails(2, &["--crop"]);
    let judged = lines(&run(&["val", &net, set.data(), "--tta", "--json"]).ok().stdout);
    assert_eq!(judged[0]["images"], 24);
    let inputs = set.root().join("inputs");
    run(&["predict", &net, picture, "--save-inputs", inputs.to_str().unwrap()]).ok();
    assert!(inputs.join("0.npy").is_file());
}

#[test]
fn a_detector_is_listed_gives_raw_heads_and_tells_boxes() {
    let name = "ssdlite320_mobilenet_v3_large";
    let listed = lines(&run(&["models", "--json"]).ok().stdout);
    let row = listed.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!((&row["task"], row["parameters"].as_u64()), (&Value::from("detect"), Some(3_440_060)));
    let folder = tempfile::tempdir().unwrap();
    let at = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    let batch = striate::graph::Array::full([1, 3, 320, 320], 0.25f32);
    striate::io::write_npy(at("x.npy").as_ref(), &batch).unwrap();
    let heads = lines(&run(&["run", name, "--input", &at("x.npy"), "--output", &at("out"), "--json"]).ok().stdout);
    let shapes: Vec<&Value> = heads.iter().map(|head| &head["shape"]).collect();
    assert_eq!(shapes, [&serde_json::json!([1, 3234, 4]), &serde_json::json!([1, 3234, 91])]);
    write_bmp(at("a.bmp").as_ref(), 40, |x, y| x.wrapping_mul(9) ^ y.wrapping_mul(3));
    let told = lines(&run(&["predict", name, &at("a.bmp"), "--conf", "0", "--json"]).ok().stdout);
    let boxes = told[0]["boxes"].as_array().unwrap();
    assert!(!boxes.is_empty());
    for found in boxes {
        let corners: Vec<f64> = found["xyxy"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(corners.iter().all(|v| (0.0..=40.001).contains(v)) && corners[0] <= corners[2], "{corners:?}");
        assert!(found["name"].is_string() && (1..91).contains(&found["index"].as_u64().unwrap()));
    }
    let timed = run(&["bench", "infer", name, "--seconds", "0.05", "--json"]).ok().stdout;
    assert!(lines(&timed)[0]["median_ms"].as_f64().unwrap() > 0.0);
    let trained = run(&["bench", "train", name, "--batch", "2", "--seconds", "0.05", "--json"]).ok().stdout;
    assert!(lines(&trained)[0]["ms_per_step"].as_f64().unwrap() > 0.0);
    run(&["train", "--model", name]).fails(2, &["detector", "--task detect"]);
    run(&["run", name, "--input", &at("a.bmp"), "--output", &at("out")]).fails(3, &["a.bmp"]);
}
