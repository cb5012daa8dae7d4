//! `striate data fetch`. There is no network code in striate: the verb says where a set is, or which files to put where.

use crate::failure::Failure;
use crate::output::{Output, OutputArgs, print_json, print_line};
use clap::Args;
use serde_json::json;
use striate::graph::nearest;
use striate::vision::data::{DataError, cache_folder, known_names, open_dataset};

/// NAME.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// fashion-mnist, mnist, cifar10 or cifar100.
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where a set is published.
struct Published {
    name: &'static str,
    /// A Debian and Ubuntu package that has it.
    package: Option<&'static str>,
    base: &'static str,
    /// Files with their MD5 sums, as the publisher gives them.
    files: &'static [(&'static str, &'static str)],
    /// What to do with the files once they are there.
    unpack: Option<&'static str>,
}

static PUBLISHED: [Published; 4] = [
    Published {
        name: "fashion-mnist",
        package: Some("dataset-fashion-mnist"),
        base: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        files: &[
            ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ],
        unpack: None,
    },
    Published {
        name: "mnist",
        package: None,
        base: "https://ossci-datasets.s3.amazonaws.com/mnist/",
        files: &[
            ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
        ],
        unpack: None,
    },
    Published {
        name: "cifar10",
        package: None,
        base: "https://www.cs.toronto.edu/~kriz/",
        files: &[("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")],
        unpack: Some("tar xzf cifar-10-binary.tar.gz"),
    },
    Published {
        name: "cifar100",
        package: None,
        base: "https://www.cs.toronto.edu/~kriz/",
        files: &[("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")],
        unpack: Some("tar xzf cifar-100-binary.tar.gz"),
    },
];

fn instructions(set: &Published) -> String {
    let cache = cache_folder().map_or_else(|| "~/.cache/striate".into(), |folder| folder.display().to_string());
    let folder = format!("{cache}/{}", set.name);
    let package = set
        .package
        .map_or(String::new(), |package| format!("On Debian and Ubuntu: sudo apt install {package}\nOr by hand:\n"));
    let files = set
        .files
        .iter()
        .map(|(file, md5)| format!("  curl -fLO {}{file} && echo '{md5}  {file}' | md5sum -c\n", set.base));
    let unpack = set.unpack.map_or(String::new(), |command| format!("  {command}\n"));
    format!(
        "{} is not on this machine, and striate never opens a connection: it has no network code. Get it like this, then run the command again.\n{package}  mkdir -p {folder} && cd {folder}\n{}{unpack}",
        set.name,
        files.collect::<String>()
    )
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
        Err(DataError::NamedSetMissing { .. }) => return Err(Failure::data(instructions(set).trim_end())),
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
