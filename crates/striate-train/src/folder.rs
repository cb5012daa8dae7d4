//! The run folder.

use crate::config::{Settings, TrainConfig};
use crate::goal::{train_figure, val_figures};
use crate::{EpochRecord, Named, Result, TrainError};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use striate_vision::models::Task;

/// Columns of `results.csv`; those of the task stand in place of the first and the last two of its figures.
fn columns(task: Task) -> String {
    let [first, second] = val_figures(task);
    format!("epoch,step,train_loss,train_{},val_loss,val_{first},val_{second},lr,best,seconds", train_figure(task))
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
    pub fn open(folder: &RunFolder, task: Task, lengths: [u64; 2]) -> Result<Logs> {
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
            logs.line(true, &columns(task))?;
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
        let [train, first, second] = std::array::from_fn(|i| r.figures.0.get(i).map_or(0.0, |(_, value)| *value));
        let line = format!(
            "{},{},{},{train},{},{first},{second},{},{},{:.3}",
            r.epoch, r.step, r.train_loss, r.val_loss, r.lr, r.best, r.seconds
        );
        self.line(true, &line)
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
        let cells: Vec<&str> = line.split(',').collect();
        let number = |i: usize| cells.get(i)?.parse::<f64>().ok();
        Some(EpochRecord {
            epoch: number(0)? as u64,
            epochs: 0,
            step: number(1)? as u64,
            train_loss: number(2)?,
            val_loss: number(4)?,
            figures: Named([3, 5, 6].iter().filter_map(|&i| Some(((*head.get(i)?).to_owned(), number(i)?))).collect()),
            lr: number(7)?,
            best: cells.get(8) == Some(&"true"),
            seconds: number(9)?,
        })
    };
    text.lines().skip(1).filter_map(parse).collect()
}
