//! Data of tensors that lie in files beside the model.

use super::proto::StringStringEntryProto;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Where external data may be read: below the model's folder, or nowhere.
pub(crate) struct ExternalData(Option<PathBuf>);

impl ExternalData {
    /// For a model without a file.
    pub(crate) fn none() -> ExternalData {
        ExternalData(None)
    }

    /// Beside a model's file.
    pub(crate) fn beside(model: &Path) -> ExternalData {
        let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty());
        ExternalData(Some(folder.unwrap_or(Path::new(".")).to_path_buf()))
    }

    /// The `wanted` bytes that the entries of a tensor name.
    pub(crate) fn read(&self, entries: &[StringStringEntryProto], wanted: u64) -> Result<Vec<u8>, String> {
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str, default: u64| match entry(key) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("external data with {key} `{text}`, which is no number")),
        };
        let location = entry("location").ok_or("external data without a location")?;
        let (offset, length) = (number("offset", 0)?, number("length", wanted)?);
        if length != wanted {
            return Err(format!("external data of {length} bytes, but the shape needs {wanted}"));
        }
        let path = self.resolve(location)?;
        let failed = |error: std::io::Error| format!("external data `{location}`: {error}");
        let mut file = File::open(&path).map_err(failed)?;
        let has = file.metadata().map_err(failed)?.len();
        if offset.checked_add(length).is_none_or(|end| end > has) {
            return Err(format!(
                "external data `{location}` has {has} bytes, the tensor needs {length} from byte {offset} on"
            ));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let mut bytes = Vec::new();
        let length_here = usize::try_from(length).map_err(|error| error.to_string())?;
        bytes.try_reserve_exact(length_here).map_err(|error| format!("external data `{location}`: {error}"))?;
        file.take(length).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// The file of a location: a plain relative path below the model's folder, no link anywhere on the way.
    fn resolve(&self, location: &str) -> Result<PathBuf, String> {
        let folder = self.0.as_ref().ok_or("external data, but the model does not lie in a file")?;
        let mut path = folder.clone();
        let relative = Path::new(location);
        let plain = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain || relative.components().next().is_none() || location.contains('\\') {
            return Err(format!("external data `{location}`: it must be a path below the model's folder"));
        }
        for part in relative.components() {
            path.push(part);
            let kind = path.symlink_metadata().map_err(|error| format!("external data `{location}`: {error}"))?;
            if kind.is_symlink() {
                return Err(format!("external data `{location}` is a link; put the file itself beside the model"));
            }
        }
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => Ok(path),
            _ => Err(format!("external data `{location}` is no regular file")),
        }
    }
}
