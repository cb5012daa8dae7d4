//! What pictures go through before torchvision's published weights, by weights file.

use super::imagenet_classes;
use crate::data::PASCAL_VOC as VOC_CLASSES;
use crate::transforms::{Interpolation, Preprocess, ResizeTo};
use Interpolation::{Bicubic, Bilinear};
use std::path::Path;

/// Mean and deviation by channel.
type Statistics = ([f32; 3], [f32; 3]);
const IMAGENET: Statistics = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
/// Also of GoogLeNet and Inception: torchvision normalises for ImageNet and, with these weights, its nets turn that into this
/// (`transform_input`); ours take it as it comes.
const HALF: Statistics = ([0.5; 3], [0.5; 3]);
/// Of the weights that came from Caffe: values up to 255 less their mean.
const CAFFE: Statistics = ([0.48235, 0.45882, 0.40784], [1.0 / 255.0; 3]);

/// One published weights file of torchvision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightsPreset {
    /// The net, as the registry calls it.
    pub model: &'static str,
    /// torchvision's name of the weights, such as `IMAGENET1K_V1`.
    pub weights: &'static str,
    /// The end of the file's name before `.pth`: the start of its SHA-256.
    pub hash: &'static str,
    /// Length of the shorter side before the crop.
    pub resize: usize,
    /// Side of the centre crop; none for segmentation.
    pub crop: Option<usize>,
    /// How to resample.
    pub interpolation: Interpolation,
    /// Whether torchvision takes these weights where none are named.
    pub is_default: bool,
    statistics: Statistics,
}

const fn row(
    model: &'static str,
    weights: &'static str,
    hash: &'static str,
    [resize, crop]: [usize; 2],
    interpolation: Interpolation,
    statistics: Statistics,
    is_default: bool,
) -> WeightsPreset {
    let crop = if crop == 0 { None } else { Some(crop) };
    WeightsPreset { model, weights, hash, resize, crop, interpolation, is_default, statistics }
}

/// Why a preset was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresetReason {
    /// The hash at the end of the file's name is that of these weights.
    FileName,
    /// They are the ones that torchvision takes for this net; the file's name says nothing.
    Default,
}

/// All published weights, by net.
pub fn weights_presets() -> &'static [WeightsPreset] {
    &PRESETS
}

/// The preset of a net's weights: by the hash at the end of the file's name (`mobilenet_v2-b0353104.pth`), else that of the net's
/// default weights. `None` for nets that torchvision does not have.
///
/// ```
/// use striate_vision::models::{PresetReason, find_preset};
/// let (preset, reason) = find_preset("mobilenet_v2", Some("mobilenet_v2-b0353104.pth".as_ref())).unwrap();
/// assert_eq!((preset.weights, preset.resize, reason), ("IMAGENET1K_V1", 256, PresetReason::FileName));
/// let (preset, reason) = find_preset("mobilenet_v2", None).unwrap();
/// assert_eq!((preset.weights, preset.resize, reason), ("IMAGENET1K_V2", 232, PresetReason::Default));
/// ```
pub fn find_preset(model: &str, file: Option<&Path>) -> Option<(&'static WeightsPreset, PresetReason)> {
    let of_net = || PRESETS.iter().filter(|preset| preset.model == model);
    let stem = file.and_then(Path::file_stem).and_then(|stem| stem.to_str());
    let hash = stem.and_then(|stem| stem.rsplit_once('-')).map(|(_, hash)| hash);
    if let Some(preset) = of_net().find(|preset| Some(preset.hash) == hash) {
        return Some((preset, PresetReason::FileName));
    }
    of_net().find(|preset| preset.is_default).map(|preset| (preset, PresetReason::Default))
}

impl WeightsPreset {
    /// Shorter side, centre crop, mean and deviation of these weights.
    pub fn preprocess(&self) -> Preprocess {
        Preprocess {
            resize: Some(ResizeTo::Shorter(self.resize)),
            crop: self.crop.map(|side| [side, side]),
            interpolation: self.interpolation,
            channels: 3,
            mean: self.statistics.0.to_vec(),
            std: self.statistics.1.to_vec(),
        }
    }

    /// The same for a net that is to see `height` x `width` pixels: the part of the picture that the crop keeps stays.
    pub fn preprocess_at(&self, [height, width]: [usize; 2]) -> Preprocess {
        let usual = self.preprocess();
        let Some(side) = self.crop else { return usual };
        let resize = (self.resize * height.min(width)) as f64 / side as f64;
        Preprocess { resize: Some(ResizeTo::Shorter(resize.round() as usize)), crop: Some([height, width]), ..usual }
    }

    /// Names of the classes that the weights tell apart, where they are ImageNet's or Pascal VOC's.
    pub fn class_names(&self) -> Option<Vec<String>> {
        match self.weights {
            "COCO_WITH_VOC_LABELS_V1" => Some(VOC_CLASSES.map(str::to_owned).to_vec()),
            weights => weights.starts_with("IMAGENET1K").then(|| imagenet_classes().map(str::to_owned).collect()),
        }
    }
}

#[rustfmt::skip]
static PRESETS: [WeightsPreset; 104] = [
    row("alexnet", "IMAGENET1K_V1", "7be5be79", [256, 224], Bilinear, IMAGENET, true),
    row("convnext_base", "IMAGENET1K_V1", "6075fbad", [232, 224], Bilinear, IMAGENET, true),
    row("convnext_large", "IMAGENET1K_V1", "ea097f82", [232, 224], Bilinear, IMAGENET, true),
    row("convnext_small", "IMAGENET1K_V1", "0c510722", [230, 224], Bilinear, IMAGENET, true),
    row("convnext_tiny", "IMAGENET1K_V1", "983f1562", [236, 224], Bilinear, IMAGENET, true),
    row("densenet121", "IMAGENET1K_V1", "a639ec97", [256, 224], Bilinear, IMAGENET, true),
    row("densenet161", "IMAGENET1K_V1", "8d451a50", [256, 224], Bilinear, IMAGENET, true),
    row("densenet169", "IMAGENET1K_V1", "b2777c0a", [256, 224], Bilinear, IMAGENET, true),
    row("densenet201", "IMAGENET1K_V1", "c1103571", [256, 224], Bilinear, IMAGENET, true),
    row("efficientnet_b0", "IMAGENET1K_V1", "7f5810bc", [256, 224], Bicubic, IMAGENET, true),
    row("efficientnet_b1", "IMAGENET1K_V1", "bac287d4", [256, 240], Bicubic, IMAGENET, false),
    row("efficientnet_b1", "IMAGENET1K_V2", "c27df63c", [255, 240], Bilinear, IMAGENET, true),
    row("efficientnet_b2", "IMAGENET1K_V1", "c35c1473", [288, 288], Bicubic, IMAGENET, true),
    row("efficientnet_b3", "IMAGENET1K_V1", "b3899882", [320, 300], Bicubic, IMAGENET, true),
    row("efficientnet_b4", "IMAGENET1K_V1", "23ab8bcd", [384, 380], Bicubic, IMAGENET, true),
    row("efficientnet_b5", "IMAGENET1K_V1", "1a07897c", [456, 456], Bicubic, IMAGENET, true),
    row("efficientnet_b6", "IMAGENET1K_V1", "24a108a5", [528, 528], Bicubic, IMAGENET, true),
    row("efficientnet_b7", "IMAGENET1K_V1", "c5b4e57e", [600, 600], Bicubic, IMAGENET, true),
    row("efficientnet_v2_l", "IMAGENET1K_V1", "59c71312", [480, 480], Bicubic, HALF, true),
    row("efficientnet_v2_m", "IMAGENET1K_V1", "dc08266a", [480, 480], Bilinear, IMAGENET, true),
    row("efficientnet_v2_s", "IMAGENET1K_V1", "dd5fe13b", [384, 384], Bilinear, IMAGENET, true),
    row("googlenet", "IMAGENET1K_V1", "1378be20", [256, 224], Bilinear, HALF, true),
    row("inception_v3", "IMAGENET1K_V1", "0cc3c7bd", [342, 299], Bilinear, HALF, true),
    row("mnasnet0_5", "IMAGENET1K_V1", "3ffadce67e", [256, 224], Bilinear, IMAGENET, true),
    row("mnasnet0_75", "IMAGENET1K_V1", "7090bc5f", [232, 224], Bilinear, IMAGENET, true),
    row("mnasnet1_0", "IMAGENET1K_V1", "f206786ef8", [256, 224], Bilinear, IMAGENET, true),
    row("mnasnet1_3", "IMAGENET1K_V1", "a4c69d6f", [232, 224], Bilinear, IMAGENET, true),
    row("mobilenet_v2", "IMAGENET1K_V1", "b0353104", [256, 224], Bilinear, IMAGENET, false),
    row("mobilenet_v2", "IMAGENET1K_V2", "7ebf99e0", [232, 224], Bilinear, IMAGENET, true),
    row("mobilenet_v3_large", "IMAGENET1K_V1", "8738ca79", [256, 224], Bilinear, IMAGENET, false),
    row("mobilenet_v3_large", "IMAGENET1K_V2", "5c1a4163", [232, 224], Bilinear, IMAGENET, true),
    row("mobilenet_v3_small", "IMAGENET1K_V1", "047dcff4", [256, 224], Bilinear, IMAGENET, true),
    row("regnet_x_16gf", "IMAGENET1K_V1", "2007eb11", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_x_16gf", "IMAGENET1K_V2", "ba3796d7", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_x_1_6gf", "IMAGENET1K_V1", "e3633e7f", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_x_1_6gf", "IMAGENET1K_V2", "a12f2b72", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_x_32gf", "IMAGENET1K_V1", "9d47f8d0", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_x_32gf", "IMAGENET1K_V2", "6eb8fdc6", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_x_3_2gf", "IMAGENET1K_V1", "f342aeae", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_x_3_2gf", "IMAGENET1K_V2", "7071aa85", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_x_400mf", "IMAGENET1K_V1", "adf1edd5", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_x_400mf", "IMAGENET1K_V2", "62229a5f", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_x_800mf", "IMAGENET1K_V1", "ad17e45c", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_x_800mf", "IMAGENET1K_V2", "94a99ebd", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_x_8gf", "IMAGENET1K_V1", "03ceed89", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_x_8gf", "IMAGENET1K_V2", "2b70d774", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_y_128gf", "IMAGENET1K_SWAG_E2E_V1", "c8ce3e52", [384, 384], Bicubic, IMAGENET, true),
    row("regnet_y_128gf", "IMAGENET1K_SWAG_LINEAR_V1", "cbe8ce12", [224, 224], Bicubic, IMAGENET, false),
    row("regnet_y_16gf", "IMAGENET1K_V1", "9e6ed7dd", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_y_16gf", "IMAGENET1K_V2", "3e4a00f9", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_y_16gf", "IMAGENET1K_SWAG_E2E_V1", "43afe44d", [384, 384], Bicubic, IMAGENET, false),
    row("regnet_y_16gf", "IMAGENET1K_SWAG_LINEAR_V1", "f3ec0043", [224, 224], Bicubic, IMAGENET, false),
    row("regnet_y_1_6gf", "IMAGENET1K_V1", "b11a554e", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_y_1_6gf", "IMAGENET1K_V2", "0d7bc02a", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_y_32gf", "IMAGENET1K_V1", "4dee3f7a", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_y_32gf", "IMAGENET1K_V2", "8db6d4b5", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_y_32gf", "IMAGENET1K_SWAG_E2E_V1", "04fdfa75", [384, 384], Bicubic, IMAGENET, false),
    row("regnet_y_32gf", "IMAGENET1K_SWAG_LINEAR_V1", "e1583746", [224, 224], Bicubic, IMAGENET, false),
    row("regnet_y_3_2gf", "IMAGENET1K_V1", "b5a9779c", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_y_3_2gf", "IMAGENET1K_V2", "9180c971", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_y_400mf", "IMAGENET1K_V1", "c65dace8", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_y_400mf", "IMAGENET1K_V2", "e6988f5f", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_y_800mf", "IMAGENET1K_V1", "1b27b58c", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_y_800mf", "IMAGENET1K_V2", "58fc7688", [232, 224], Bilinear, IMAGENET, true),
    row("regnet_y_8gf", "IMAGENET1K_V1", "d0d0e4a8", [256, 224], Bilinear, IMAGENET, false),
    row("regnet_y_8gf", "IMAGENET1K_V2", "dc2b1b54", [232, 224], Bilinear, IMAGENET, true),
    row("resnet101", "IMAGENET1K_V1", "63fe2227", [256, 224], Bilinear, IMAGENET, false),
    row("resnet101", "IMAGENET1K_V2", "cd907fc2", [232, 224], Bilinear, IMAGENET, true),
    row("resnet152", "IMAGENET1K_V1", "394f9c45", [256, 224], Bilinear, IMAGENET, false),
    row("resnet152", "IMAGENET1K_V2", "f82ba261", [232, 224], Bilinear, IMAGENET, true),
    row("resnet18", "IMAGENET1K_V1", "f37072fd", [256, 224], Bilinear, IMAGENET, true),
    row("resnet34", "IMAGENET1K_V1", "b627a593", [256, 224], Bilinear, IMAGENET, true),
    row("resnet50", "IMAGENET1K_V1", "0676ba61", [256, 224], Bilinear, IMAGENET, false),
    row("resnet50", "IMAGENET1K_V2", "11ad3fa6", [232, 224], Bilinear, IMAGENET, true),
    row("resnext101_32x8d", "IMAGENET1K_V1", "8ba56ff5", [256, 224], Bilinear, IMAGENET, false),
    row("resnext101_32x8d", "IMAGENET1K_V2", "110c445d", [232, 224], Bilinear, IMAGENET, true),
    row("resnext101_64x4d", "IMAGENET1K_V1", "173b62eb", [232, 224], Bilinear, IMAGENET, true),
    row("resnext50_32x4d", "IMAGENET1K_V1", "7cdf4587", [256, 224], Bilinear, IMAGENET, false),
    row("resnext50_32x4d", "IMAGENET1K_V2", "1a0047aa", [232, 224], Bilinear, IMAGENET, true),
    row("shufflenet_v2_x0_5", "IMAGENET1K_V1", "f707e7126e", [256, 224], Bilinear, IMAGENET, true),
    row("shufflenet_v2_x1_0", "IMAGENET1K_V1", "5666bf0f80", [256, 224], Bilinear, IMAGENET, true),
    row("shufflenet_v2_x1_5", "IMAGENET1K_V1", "3c479a10", [232, 224], Bilinear, IMAGENET, true),
    row("shufflenet_v2_x2_0", "IMAGENET1K_V1", "8be3c8ee", [232, 224], Bilinear, IMAGENET, true),
    row("squeezenet1_0", "IMAGENET1K_V1", "b66bff10", [256, 224], Bilinear, IMAGENET, true),
    row("squeezenet1_1", "IMAGENET1K_V1", "b8a52dc0", [256, 224], Bilinear, IMAGENET, true),
    row("vgg11", "IMAGENET1K_V1", "8a719046", [256, 224], Bilinear, IMAGENET, true),
    row("vgg11_bn", "IMAGENET1K_V1", "6002323d", [256, 224], Bilinear, IMAGENET, true),
    row("vgg13", "IMAGENET1K_V1", "19584684", [256, 224], Bilinear, IMAGENET, true),
    row("vgg13_bn", "IMAGENET1K_V1", "abd245e5", [256, 224], Bilinear, IMAGENET, true),
    row("vgg16", "IMAGENET1K_V1", "397923af", [256, 224], Bilinear, IMAGENET, true),
    row("vgg16", "IMAGENET1K_FEATURES", "88682ab5", [256, 224], Bilinear, CAFFE, false),
    row("vgg16_bn", "IMAGENET1K_V1", "6c64b313", [256, 224], Bilinear, IMAGENET, true),
    row("vgg19", "IMAGENET1K_V1", "dcbb9e9d", [256, 224], Bilinear, IMAGENET, true),
    row("vgg19_bn", "IMAGENET1K_V1", "c79401a0", [256, 224], Bilinear, IMAGENET, true),
    row("wide_resnet101_2", "IMAGENET1K_V1", "32ee1156", [256, 224], Bilinear, IMAGENET, false),
    row("wide_resnet101_2", "IMAGENET1K_V2", "d733dc28", [232, 224], Bilinear, IMAGENET, true),
    row("wide_resnet50_2", "IMAGENET1K_V1", "95faca4d", [256, 224], Bilinear, IMAGENET, false),
    row("wide_resnet50_2", "IMAGENET1K_V2", "9ba9bcbe", [232, 224], Bilinear, IMAGENET, true),
    row("deeplabv3_mobilenet_v3_large", "COCO_WITH_VOC_LABELS_V1", "fc3c493d", [520, 0], Bilinear, IMAGENET, true),
    row("deeplabv3_resnet101", "COCO_WITH_VOC_LABELS_V1", "586e9e4e", [520, 0], Bilinear, IMAGENET, true),
    row("deeplabv3_resnet50", "COCO_WITH_VOC_LABELS_V1", "cd0a2569", [520, 0], Bilinear, IMAGENET, true),
    row("fcn_resnet101", "COCO_WITH_VOC_LABELS_V1", "7ecb50ca", [520, 0], Bilinear, IMAGENET, true),
    row("fcn_resnet50", "COCO_WITH_VOC_LABELS_V1", "1167a1af", [520, 0], Bilinear, IMAGENET, true),
    row("lraspp_mobilenet_v3_large", "COCO_WITH_VOC_LABELS_V1", "d234d4ea", [520, 0], Bilinear, IMAGENET, true),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::models;

    #[test]
    fn every_net_has_one_default_and_every_hash_stands_once() {
        for preset in weights_presets() {
            let defaults = PRESETS.iter().filter(|p| p.model == preset.model && p.is_default);
            assert_eq!(defaults.count(), 1, "{}", preset.model);
            assert_eq!(PRESETS.iter().filter(|p| p.hash == preset.hash).count(), 1, "{}", preset.hash);
            preset.preprocess().check().unwrap();
            assert!(preset.crop.is_none_or(|side| side <= preset.resize), "{preset:?}");
        }
        for spec in models().filter(|spec| spec.classes == 1000) {
            let (preset, _) = find_preset(spec.name, None).unwrap_or_else(|| panic!("{} has no preset", spec.name));
            assert_eq!(preset.class_names().map(|names| names.len()), Some(1000));
        }
    }

    #[test]
    fn presets_are_those_of_torchvisions_documentation() {
        let get = |model: &str, file: &str| {
            let (p, reason) = find_preset(model, Some(Path::new(file))).unwrap();
            (p.weights, p.resize, p.crop, p.interpolation, reason)
        };
        use PresetReason::{Default, FileName};
        let v1 = "IMAGENET1K_V1";
        assert_eq!(get("resnet50", "a/resnet50-0676ba61.pth"), (v1, 256, Some(224), Bilinear, FileName));
        assert_eq!(get("resnet50", "resnet50-11ad3fa6.pth"), ("IMAGENET1K_V2", 232, Some(224), Bilinear, FileName));
        assert_eq!(get("resnet50", "my-weights.safetensors"), ("IMAGENET1K_V2", 232, Some(224), Bilinear, Default));
        assert_eq!(get("mobilenet_v2", "mobilenet_v2-b0353104.safetensors").1, 256);
        let b7 = get("efficientnet_b7", "efficientnet_b7_lukemelas-c5b4e57e.pth");
        assert_eq!(b7, (v1, 600, Some(600), Bicubic, FileName));
        assert_eq!(get("inception_v3", "inception_v3_google-0cc3c7bd.pth"), (v1, 342, Some(299), Bilinear, FileName));
        // Another net's hash says nothing.
        assert_eq!(get("resnet18", "resnet50-0676ba61.pth").4, Default);
        let (large, _) = find_preset("efficientnet_v2_l", None).unwrap();
        assert_eq!(large.preprocess().mean, [0.5; 3]);
        let (fcn, _) = find_preset("fcn_resnet50", None).unwrap();
        let names = fcn.class_names().unwrap();
        assert_eq!((fcn.preprocess().crop, names.len(), names[15].as_str()), (None, 21, "person"));
        assert!(find_preset("small", None).is_none());
    }

    #[test]
    fn another_size_keeps_the_part_that_is_seen() {
        let (preset, _) = find_preset("mobilenet_v2", Some(Path::new("x-b0353104.pth"))).unwrap();
        assert_eq!(preset.preprocess_at([224, 224]), preset.preprocess());
        let small = preset.preprocess_at([160, 160]);
        assert_eq!((small.resize, small.crop), (Some(ResizeTo::Shorter(183)), Some([160, 160])));
    }
}
