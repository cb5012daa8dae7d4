//! The classes of ImageNet-1k.

/// Names of the 1000 classes, in the order in which torchvision's weights number them.
///
/// ```
/// let names: Vec<&str> = striate_vision::models::imagenet_classes().collect();
/// assert_eq!((names.len(), names[0], names[967]), (1000, "tench", "espresso"));
/// ```
pub fn imagenet_classes() -> impl Iterator<Item = &'static str> {
    include_str!("../../assets/imagenet-classes.txt").lines()
}

/// Licence of torchvision, which the names come from.
pub const IMAGENET_CLASSES_LICENSE: &str = include_str!("../../assets/LICENSE-torchvision");
