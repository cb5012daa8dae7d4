//! The run folder.

use crate::config::{Settings, TrainConfig};
use crate::goal::val_figures;
use crate::{EpochRecord, Named, Result, TrainError};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use striate_vision::models::Task;

/// Columns of `results.csv` that are no figures of the task.
const FIXED: [&str; 7] = ["epoch", "step", "train_loss", "val_loss", "lr", "best", "seconds"];

/// Columns of `results.csv`; those of the task stand behind the loss of their part. Detectors have no loss in evaluation.
fn columns(task: Task, train_figures: &[String]) -> String {
    let val_loss = (task != Task::Detect).then_some("val_loss");
    let first = ["epoch", "step", "train_loss"].into_iter().chain(train_figures.iter().map(String::as_str));
    let last = val_loss.into_iter().chain(val_figures(task)).chain(["lr", "best", "seconds"]);
    first.chain(last).collect::<Vec<_>>().join(",")
}
/// Most run folders of one name.
const MOST: usize = 100_000;

/// The files of a run: `args.toml`, `results.csv`, `events.jsonl`, `weights/`, `checkpoints/`, `metrics.json`, `report.html`.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes `project/name`, or `project/name2`, `name3`, … if that is taken.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(project: &Path, name: &str) -> Result<RunFolder> {
        std::fs::create_dir_all(project).map_err(TrainError::io(project, "create the folder"))?;
        for number in 1..=MOST {
            let path = project.join(if number == 1 { name.to_owned() } else { format!("{name}{number}") });
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    let weights = path.join("weights");
                    std::fs::create_dir(&weights).map_err(TrainError::io(&weights, "create the folder"))?;
                    return Ok(RunFolder { path });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(TrainError::io(&path, "create the folder")(error)),
            }
        }
        Err(TrainError::setting("--name", name, "that many runs of this name exist; choose another"))
    }

    /// An existing run folder.
    ///
    /// # Errors
    /// [`TrainError::Setting`] if it is none.
    pub fn open(path: &Path) -> Result<RunFolder> {
        let folder = RunFolder { path: path.to_path_buf() };
        if !folder.args().is_file() {
            let fix = "it is no run folder (it has no args.toml); give the folder that `striate train` named";
            return Err(TrainError::setting("--resume", path.display(), fix));
        }
        let weights = folder.path.join("weights");
        std::fs::create_dir_all(&weights).map_err(TrainError::io(&weights, "create the folder"))?;
        Ok(folder)
    }

    /// The folder at this path, whatever is there.
    pub(crate) fn at(path: &Path) -> RunFolder {
        RunFolder { path: path.to_path_buf() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The settings.
    pub fn args(&self) -> PathBuf {
        self.path.join("args.toml")
    }

    /// The figures of each epoch.
    pub fn results(&self) -> PathBuf {
        self.path.join("results.csv")
    }

    /// What happened, one JSON object a line.
    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// The weights that val liked best.
    pub fn best(&self) -> PathBuf {
        self.path.join("weights").join("best.safetensors")
    }

    /// The weights after the last epoch.
    pub fn last(&self) -> PathBuf {
        self.path.join("weights").join("last.safetensors")
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The figures of the finished run; there only when it has finished.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.json")
    }

    /// For people.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// A picture or page of the run, by its name.
    pub fn picture(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn write_args(&self, settings: &Settings) -> Result<()> {
        let text = toml::to_string(&TrainConfig::from(settings.clone()))
            .map_err(|error| TrainError::Config { path: self.args(), why: error.to_string() })?;
        Ok(striate_io::write_atomic(&self.args(), text.as_bytes())?)
    }

    pub(crate) fn read_args(&self) -> Result<TrainConfig> {
        crate::read_config(&self.args())
    }
}

/// `results.csv` and `events.jsonl`, open at their ends.
pub(crate) struct Logs {
    folder: RunFolder,
    results: File,
    events: File,
}

impl Logs {
    /// Opens both, cut back to these lengths: what came after the checkpoint will come again.
    pub fn open(folder: &RunFolder, (task, train_figures): (Task, &[String]), lengths: [u64; 2]) -> Result<Logs> {
        let open = |path: PathBuf, length: u64| {
            let file =
                OpenOptions::new().create(true).append(true).open(&path).map_err(TrainError::io(&path, "open"))?;
            let now = file.metadata().map_err(TrainError::io(&path, "read"))?.len();
            file.set_len(length.min(now)).map_err(TrainError::io(&path, "cut back"))?;
            Ok::<File, TrainError>(file)
        };
        let [results, events] = lengths;
        let mut logs = Logs {
            folder: folder.clone(),
            results: open(folder.results(), results)?,
            events: open(folder.events(), events)?,
        };
        if logs.lengths()?[0] == 0 {
            logs.line(true, &columns(task, train_figures))?;
        }
        Ok(logs)
    }

    fn line(&mut self, results: bool, line: &str) -> Result<()> {
        let (file, path) = match results {
            true => (&mut self.results, self.folder.results()),
            false => (&mut self.events, self.folder.events()),
        };
        file.write_all(format!("{line}\n").as_bytes()).map_err(TrainError::io(&path, "write"))
    }

    pub fn event(&mut self, event: &crate::Event<'_>) -> Result<()> {
        let line = serde_json::to_string(event).map_err(|error| std::io::Error::other(error.to_string()));
        let line = line.map_err(TrainError::io(&self.folder.events(), "write"))?;
        self.line(false, &line)
    }

    pub fn epoch(&mut self, r: &EpochRecord) -> Result<()> {
        let numbers =
            |figures: &[(String, f64)]| figures.iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>();
        let of_val = r.figures.0.len().saturating_sub(2);
        let mut cells = vec![r.epoch.to_string(), r.step.to_string(), r.train_loss.to_string()];
        cells.extend(numbers(&r.figures.0[..of_val]));
        cells.extend(r.val_loss.map(|loss| loss.to_string()));
        cells.extend(numbers(&r.figures.0[of_val..]));
        cells.extend([r.lr.to_string(), r.best.to_string(), format!("{:.3}", r.seconds)]);
        self.line(true, &cells.join(","))
    }

    /// Lengths now, with all of it on the disk.
    pub fn lengths(&mut self) -> Result<[u64; 2]> {
        let length = |file: &File, path: PathBuf| {
            let synced = file.sync_data().and_then(|()| file.metadata());
            synced.map(|m| m.len()).map_err(TrainError::io(&path, "sync"))
        };
        Ok([length(&self.results, self.folder.results())?, length(&self.events, self.folder.events())?])
    }
}

/// The epochs of `results.csv`, for the report; lines that cannot be read are left out.
pub(crate) fn read_results(folder: &RunFolder) -> Vec<EpochRecord> {
    let text = std::fs::read_to_string(folder.results()).unwrap_or_default();
    let head: Vec<&str> = text.lines().next().unwrap_or_default().split(',').collect();
    let parse = |line: &str| {
        let cells: Vec<(&str, &str)> = head.iter().copied().zip(line.split(',')).collect();
        let cell = |name: &str| cells.iter().find(|(n, _)| *n == name).map(|(_, cell)| *cell);
        let number = |name: &str| cell(name)?.parse::<f64>().ok();
        let figures = cells.iter().filter(|(name, _)| !FIXED.contains(name));
        Some(EpochRecord {
            epoch: number("epoch")? as u64,
            epochs: 0,
            step: number("step")? as u64,
            train_loss: number("train_loss")?,
            val_loss: number("val_loss"),
            figures: Named(figures.filter_map(|(name, cell)| Some(((*name).to_owned(), cell.parse().ok()?))).collect()),
            lr: number("lr")?,
            best: cell("best") == Some("true"),
            seconds: number("seconds")?,
        })
    };
    text.lines().skip(1).filter_map(parse).collect()
}
