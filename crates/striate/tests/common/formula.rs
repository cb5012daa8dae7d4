//! Weights, pictures and labels by formula, as `tools/ref/README.md` defines them: the same bits as PyTorch's side.

/// FNV-1a, 64 bits, of the text's UTF-8 bytes.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The outputs of splitmix64 whose state begins as the name's hash; they never end.
pub fn splitmix(name: &str) -> impl Iterator<Item = u64> {
    let mut state = fnv1a(name);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// `count` values of scale * (u - 0.5), where u is a splitmix output's top 24 bits / 2^24.
pub fn values(name: &str, count: usize, scale: f32) -> Vec<f32> {
    splitmix(name).take(count).map(|z| scale * ((z >> 40) as f32 / 16_777_216.0 - 0.5)).collect()
}

/// The initial value of a network's parameter or running statistic; `normed` says that it belongs to a batch norm.
pub fn initial(name: &str, shape: &[usize], normed: bool) -> Vec<f32> {
    let count = shape.iter().product();
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        "weight" if shape.len() >= 2 => {
            let fan_in = shape[1..].iter().product::<usize>() as f64;
            let width = if shape.len() == 2 && shape[0] == 10 { 0.24 } else { 24.0 };
            values(name, count, (width / fan_in).sqrt() as f32)
        }
        "bias" if !normed => values(name, count, 0.1),
        "weight" | "running_var" => vec![1.0; count],
        _ => vec![0.0; count],
    }
}

/// The pictures of a step, "0" to "9", or "eval".
pub fn images(step: &str, count: usize) -> Vec<f32> {
    values(&format!("input.{step}"), count, 12.0_f64.sqrt() as f32)
}

/// The labels of a step, from 0 to 9.
pub fn labels(step: &str, count: usize) -> Vec<i64> {
    splitmix(&format!("label.{step}")).take(count).map(|z| (((z >> 40) * 10) >> 24) as i64).collect()
}

/// Which elements of a tensor of `count` elements the fixture holds, in this order; one may come twice.
pub fn sample_indices(name: &str, count: usize) -> Vec<usize> {
    const SAMPLES: usize = 32;
    if count <= SAMPLES {
        return (0..count).collect();
    }
    splitmix(&format!("{name}#sample")).take(SAMPLES).map(|z| (z % count as u64) as usize).collect()
}

/// Sum over j of (bits of element j) * (2 j + 1), modulo 2^64, in hexadecimal.
pub fn bit_checksum(values: &[f32]) -> String {
    let add = |sum: u64, (j, v): (usize, &f32)| {
        sum.wrapping_add(u64::from(v.to_bits()).wrapping_mul((j as u64).wrapping_mul(2).wrapping_add(1)))
    };
    format!("{:016x}", values.iter().enumerate().fold(0, add))
}
