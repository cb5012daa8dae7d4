//! `striate data fetch`: downloads a data set into the cache, and checks it. The one verb that opens a connection.

use crate::failure::Failure;
use crate::output::{Output, OutputArgs, print_json, print_line};
use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use striate::graph::nearest;
use striate::vision::data::{DataError, cache_folder, known_names, open_dataset};

/// NAME.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// fashion-mnist, mnist, cifar10 or cifar100.
    name: String,
    /// Another address to download from, such as a mirror's; the checksums stay the same.
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where a set is published.
struct Published {
    name: &'static str,
    base: &'static str,
    /// Files with their SHA-256, and the most bytes that are read of each.
    files: &'static [(&'static str, &'static str)],
}

/// No file of these sets is larger.
const MOST_BYTES: u64 = 256 << 20;

static PUBLISHED: [Published; 4] = [
    Published {
        name: "fashion-mnist",
        base: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files: &[
            ("train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            ("train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            ("t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            ("t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ],
    },
    Published {
        name: "mnist",
        base: "https://ossci-datasets.s3.amazonaws.com/mnist/",
        files: &[
            ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ],
    },
    Published {
        name: "cifar10",
        base: "https://www.cs.toronto.edu/~kriz/",
        files: &[("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")],
    },
    Published {
        name: "cifar100",
        base: "https://www.cs.toronto.edu/~kriz/",
        files: &[("cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec")],
    },
];

/// Downloads all files of a set into a new folder of the cache; the folder appears once everything in it is right.
fn download(set: &Published, base: &str) -> Result<PathBuf, Failure> {
    let cache = cache_folder().ok_or_else(|| {
        Failure::new(5, "there is no cache folder: neither STRIATE_CACHE nor XDG_CACHE_HOME nor HOME is set; set one")
    })?;
    let (folder, partial) = (cache.join(set.name), cache.join(format!("{}.partial", set.name)));
    std::fs::create_dir_all(&partial).map_err(|error| Failure::io(&partial, "make the folder", &error))?;
    for (file, sha256) in set.files {
        let target = partial.join(file);
        eprintln!("{base}{file}");
        download_file(&format!("{base}{file}"), &target, sha256)?;
        if file.ends_with(".tar.gz") {
            unpack(&target, &partial)?;
            std::fs::remove_file(&target).map_err(|error| Failure::io(&target, "remove", &error))?;
        }
    }
    std::fs::rename(&partial, &folder).map_err(|error| Failure::io(&folder, "move the finished folder to", &error))?;
    Ok(folder)
}

fn download_file(url: &str, target: &Path, sha256: &str) -> Result<(), Failure> {
    let refused = |error: ureq::Error| {
        Failure::new(5, format!("{url}: {error}; is there a network? `--from URL` downloads from another address"))
    };
    let mut response = ureq::get(url).call().map_err(refused)?;
    let mut body = response.body_mut().with_config().limit(MOST_BYTES).reader();
    let mut out = std::fs::File::create(target).map_err(|error| Failure::io(target, "create", &error))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let n = body.read(&mut buffer).map_err(|error| Failure::new(5, format!("{url}: {error}")))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        out.write_all(&buffer[..n]).map_err(|error| Failure::io(target, "write", &error))?;
    }
    out.sync_all().map_err(|error| Failure::io(target, "write", &error))?;
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == sha256 {
        return Ok(());
    }
    Err(Failure::data(format!("{url}: its SHA-256 is {found}, not {sha256}: the file is damaged or another one")))
}

/// Takes the `.bin` and `.txt` members out of a CIFAR archive, by their last name alone: no path of the archive is followed.
fn unpack(archive: &Path, folder: &Path) -> Result<(), Failure> {
    let damaged = |error: std::io::Error| Failure::data(format!("{}: {error}", archive.display()));
    let file = std::fs::File::open(archive).map_err(|error| Failure::io(archive, "open", &error))?;
    let mut members = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for member in members.entries().map_err(damaged)? {
        let mut member = member.map_err(damaged)?;
        let path = member.path().map_err(damaged)?.into_owned();
        let wanted = path.extension().is_some_and(|e| e == "bin" || e == "txt");
        let (Some(name), true, true) = (path.file_name(), wanted, member.header().entry_type().is_file()) else {
            continue;
        };
        let target = folder.join(name);
        let mut out = std::fs::File::create(&target).map_err(|error| Failure::io(&target, "create", &error))?;
        std::io::copy(&mut (&mut member).take(MOST_BYTES), &mut out).map_err(damaged)?;
    }
    Ok(())
}

/// Runs the verb.
pub fn run(args: &FetchArgs) -> Result<(), Failure> {
    let name = args.name.as_str();
    let Some(set) = PUBLISHED.iter().find(|set| set.name == name) else {
        let hint = nearest(name, known_names()).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        let names = known_names().collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("there is no data set `{name}`{hint}; the names are {names}")));
    };
    let source = match open_dataset(name) {
        Err(DataError::NamedSetMissing { .. }) => {
            let base =
                args.from.as_deref().map_or(set.base.to_owned(), |url| format!("{}/", url.trim_end_matches('/')));
            download(set, &base)?;
            open_dataset(name)?
        }
        other => other?,
    };
    let len = |part: &Option<std::sync::Arc<dyn striate::vision::data::Dataset>>| part.as_ref().map_or(0, |p| p.len());
    let (train, test) = (len(&source.train), len(&source.test));
    let path = source.path.unwrap_or_default();
    match args.output.choose() {
        Output::Json => print_json(&json!({"name": name, "path": path, "train": train, "test": test})),
        _ => print_line(&format!("{name} is in {}: {train} training and {test} test pictures", path.display())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// An archive with what is wanted, what is not, and a path that leads out.
    fn archive() -> Vec<u8> {
        let mut members = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for (path, body) in
            [("cifar/data_batch_1.bin", "pixels"), ("cifar/readme.html", "text"), ("x/out.bin", "outside")]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            // Written into the header directly: the builder refuses such a path.
            let path = if path == "x/out.bin" { "../out.bin" } else { path };
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            members.append(&header, body.as_bytes()).unwrap();
        }
        members.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn a_file_is_downloaded_checked_and_unpacked_inside_its_folder() {
        let body = archive();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a.tar.gz", listener.local_addr().unwrap());
        let served = body.clone();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", served.len());
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&served)).unwrap();
        });
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("set");
        std::fs::create_dir(&folder).unwrap();
        let target = folder.join("a.tar.gz");
        let sha256: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
        download_file(&url, &target, &sha256).unwrap();
        server.join().unwrap();
        unpack(&target, &folder).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.tar.gz", "data_batch_1.bin", "out.bin"]);
        assert!(!root.path().join("out.bin").exists(), "nothing is written outside the folder");
        assert_eq!(std::fs::read(folder.join("data_batch_1.bin")).unwrap(), b"pixels");
    }
}
