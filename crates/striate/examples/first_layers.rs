//! The first lesson on convolutional networks: what a convolution holds, what pooling does, what one output is made of, and
//! what an edge kernel sees in a picture.
//!
//! `cargo run --release --example first_layers`

use std::error::Error;
use striate::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    a_convolution_holds_weights()?;
    pooling_keeps_the_largest()?;
    one_output_is_a_dot_product()?;
    a_kernel_finds_edges()
}

fn a_convolution_holds_weights() -> Result<(), Box<dyn Error>> {
    manual_seed(0);
    let conv = Conv2d::new(1, 32, 3).stride(1).padding(1);
    println!("{conv}\n");
    println!("conv.weight, {}:\n{}\n", conv.weight.shape(), conv.weight);
    if let Some(bias) = &conv.bias {
        println!("conv.bias, {}:\n{bias}\n", bias.shape());
    }
    let picture = Array::zeros([1, 1, 28, 28], DType::F32);
    println!("{} becomes {}\n", picture.shape(), conv.apply(&picture)?.shape());
    Ok(())
}

/// The numbers from 1 to 16 as a picture of 4x4.
fn sixteen() -> Result<Array, Box<dyn Error>> {
    Ok(Array::from_vec([1, 1, 4, 4], (1..=16).map(|v| v as f32).collect())?)
}

fn pooling_keeps_the_largest() -> Result<(), Box<dyn Error>> {
    let x = sixteen()?;
    println!("x:\n{x}\n");
    let pool = MaxPool2d::new(2).stride(2);
    println!("{pool} gives\n{}\n", pool.apply(&x)?);
    Ok(())
}

fn one_output_is_a_dot_product() -> Result<(), Box<dyn Error>> {
    let x = sixteen()?;
    let conv = Conv2d::new(1, 1, 3).bias(false);
    let kernel = [1f32, 0.0, -1.0, 2.0, 0.0, -2.0, 1.0, 0.0, -1.0];
    conv.weight.set(Array::from_vec([1, 1, 3, 3], kernel.to_vec())?)?;
    let y = conv.apply(&x)?;
    println!("a 3x3 kernel over x gives\n{y}\n");

    let pixels = x.f32s()?;
    let mut terms = Vec::new();
    let mut sum = 0.0;
    for row in 0..3 {
        for column in 0..3 {
            let (pixel, weight) = (pixels[row * 4 + column], kernel[row * 3 + column]);
            terms.push(format!("{pixel}*({weight})"));
            sum += pixel * weight;
        }
    }
    println!("its first value is the dot product of the kernel and the pixels beneath it:");
    println!("{} = {sum}\n", terms.join(" + "));
    assert_eq!(sum, y.f32s()?[0]);
    Ok(())
}

fn a_kernel_finds_edges() -> Result<(), Box<dyn Error>> {
    let (name, picture) = picture()?;
    println!("a picture, {name}:\n{}", shades(&picture)?);
    let edges = Conv2d::new(1, 1, 3).padding(1).padding_mode("replicate").bias(false);
    let sobel = vec![-1f32, 0.0, 1.0, -2.0, 0.0, 2.0, -1.0, 0.0, 1.0];
    edges.weight.set(Array::from_vec([1, 1, 3, 3], sobel)?)?;
    let map = edges.apply(&picture)?;
    println!(
        "where it gets brighter from left to right (Sobel's kernel, then ReLU):\n{}",
        shades(&ReLU::new().apply(&map)?)?
    );
    Ok(())
}

/// A test picture of the data set inside the library, [1, 1, 28, 28], and its class.
fn picture() -> Result<(String, Array), Box<dyn Error>> {
    let source = striate::vision::data::open_embedded()?;
    let test = source.test.ok_or("the embedded data has a test part")?;
    let sample = test.get(0)?;
    let pixels = (0..28 * 28).map(|i| f32::from(sample.image.pixel(i % 28, i / 28)[0]) / 255.0);
    let picture = Array::from_vec([1, 1, 28, 28], pixels.collect())?;
    Ok((source.class_names[sample.label].clone(), picture))
}

/// A picture as characters, dark to bright.
fn shades(picture: &Array) -> Result<String, Box<dyn Error>> {
    let (values, width) = (picture.f32s()?, picture.shape()[3]);
    let most = values.iter().fold(f32::MIN_POSITIVE, |a, b| a.max(*b));
    let ramp: Vec<char> = " .:-=+*#%@".chars().collect();
    let shade = |v: &f32| ramp[((v / most).clamp(0.0, 1.0) * (ramp.len() - 1) as f32).round() as usize];
    Ok(values.chunks(width).map(|row| row.iter().map(shade).collect::<String>() + "\n").collect())
}
