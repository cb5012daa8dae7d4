//! striate-vision.
#![forbid(unsafe_code)]
