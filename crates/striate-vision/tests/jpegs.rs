//! JPEG files against libjpeg-turbo as PIL has it, by fixtures that `tools/ref/jpegs.py` makes: the same bytes.

use safetensors::SafeTensors;
use striate_vision::data::Image;

fn fixture() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jpegs.safetensors")).unwrap()
}

/// Name, file, shape and pixels.
type Case = (String, Vec<u8>, Vec<usize>, Vec<u8>);

fn cases(bytes: &[u8]) -> Vec<Case> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let names = file.names().into_iter().filter_map(|name| name.strip_suffix("/file"));
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    let case = |name: &str| {
        let pixels = file.tensor(&format!("{name}/pixels")).unwrap();
        let data = file.tensor(&format!("{name}/file")).unwrap().data().to_vec();
        (name.to_owned(), data, pixels.shape().to_vec(), pixels.data().to_vec())
    };
    names.into_iter().map(case).collect()
}

#[test]
fn every_kind_gives_libjpegs_bytes() {
    let bytes = fixture();
    let cases = cases(&bytes);
    assert!(cases.len() > 60);
    let mut wrong = Vec::new();
    for (name, file, shape, pixels) in &cases {
        let image = Image::decode(file, name).unwrap();
        assert_eq!([image.height, image.width, image.channels], shape[..], "{name}");
        let most = image.data.iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if most > 0 {
            wrong.push(format!("{name}: by up to {most}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whatever is wrong with a file, it is an error or a picture, and never more.
#[test]
fn damaged_files_are_errors_or_pictures() {
    let bytes = fixture();
    let mut state = 12345u32;
    let mut random = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % n
    };
    let (mut refused, mut read) = (0, 0);
    for (name, file, ..) in cases(&bytes).iter().filter(|case| case.1.len() < 4000) {
        for round in 0..40 {
            let mut broken = file.clone();
            match round % 3 {
                0 => broken.truncate(random(file.len())),
                1 => broken[random(file.len())] = random(256) as u8,
                _ => (0..4).for_each(|_| broken[random(file.len())] ^= 1 << random(8)),
            }
            match Image::decode(&broken, name) {
                Ok(image) => {
                    read += 1;
                    assert_eq!(image.data.len(), image.width * image.height * image.channels);
                }
                Err(error) => {
                    refused += 1;
                    let text = error.to_string();
                    assert!(text.starts_with(name.as_str()) && !text.contains("panic"), "{text}");
                }
            }
        }
    }
    assert!(refused > 100 && read > 100, "{refused} refused, {read} read");
}
