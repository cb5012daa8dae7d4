//! From files to batches.
//!
//! [`open_dataset`] and [`open_embedded`] give a [`DatasetSource`] with its parts; an [`ImageLoader`] makes batches of a part.
//! Data of one's own comes in by implementing [`Dataset`] (pictures) or [`DataLoader`] (batches).
//!
//! ```
//! use std::sync::Arc;
//! use striate_vision::data::{DataLoader, ImageLoader, LoaderOptions, Pipeline, open_embedded};
//! use striate_vision::transforms::{Compose, Normalize, RandomHorizontalFlip};
//!
//! let source = open_embedded()?;
//! let pipeline = Pipeline::new(Normalize::new(&[0.286], &[0.353])?).augment(Compose::new().then(RandomHorizontalFlip::new(0.5)));
//! let options = LoaderOptions { batch: 64, shuffle: true, workers: 1, ..LoaderOptions::default() };
//! let mut loader = ImageLoader::new(source.train.unwrap(), pipeline, options)?;
//! loader.start(0, 0)?;
//! let batch = loader.next_batch()?.unwrap();
//! assert_eq!(batch.shape, [64, 1, 28, 28]);
//! # Ok::<(), striate_vision::data::DataError>(())
//! ```

mod box_batches;
mod boxes;
mod cifar;
mod dataset;
mod error;
mod folder;
mod idx;
mod jpeg;
mod loader;
mod mask;
mod names;
mod picture;
mod pipeline;
mod queue;
mod scenes;
mod segment;
mod source;
mod split;
mod stats;
mod table;

pub(crate) use error::did_you_mean;
pub(crate) use folder::{Listing, is_picture, part_of};
pub(crate) use picture::{PictureHead, decode_into, probe_head, read_limited};
pub(crate) use table::{find_picture, split_cells};

pub use box_batches::{BatchBoxes, BoxTraining};
pub use boxes::BoxDataset;
pub use dataset::{Dataset, MemoryDataset, Sample, Subset, class_counts, labels_of};
pub use error::{DataError, PictureError, Result};
pub use folder::FolderDataset;
pub use idx::{IdxArray, IdxKind, read_idx, read_idx_file};
pub use loader::{BadPictures, Batch, DataLoader, ImageLoader, LoaderOptions, Skipped};
pub use mask::{IGNORE, decode_mask, encode_mask, encode_png, overlay, voc_color};
pub use names::{CIFAR10, FASHION_MNIST, PASCAL_VOC};
pub use picture::{Image, MAX_BYTES, MAX_PIXELS, MAX_SIDE, PictureInfo, luma, probe};
pub use pipeline::Pipeline;
pub use scenes::{SceneDataset, open_scenes};
pub use segment::MaskDataset;
pub use source::{
    DatasetKind, DatasetSource, EMBEDDED_LICENSE, Wanted, cache_folder, known_names, open_dataset, open_dataset_as,
    open_embedded, open_path,
};
pub use split::{split_dataset, stratified_split};
pub use stats::{ChannelStats, channel_stats};
pub use table::TableDataset;
