//! Following a job of another process.

use std::fs::{self, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::lock::{self, Attempt};
use super::progress::{PROGRESS_NAME, Progress};
use super::work::{self, LOCK_NAME};
use super::{Error, disk};

/// A job whose working folder was found. It can be followed to its end, although the folder goes with it.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    folder: PathBuf,
    /// The working folder's lock, which outlives it as long as it is open.
    lock: fs::File,
}

/// What is seen of a job.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and the large one is the common one"
)]
pub enum Sight {
    /// It has begun and not told anything yet, or what it tells cannot be read.
    Nothing,
    /// It runs, or has ended and says how.
    Told(Progress),
    /// Its process is gone and did not say how it ended.
    Died,
}

/// What a folder holds of jobs.
enum Seen {
    /// A working folder that has no lock: it is just being made, or going.
    Beginning,
    /// A job, if there is one.
    Found(Option<Follower>),
}

/// How long a working folder may be without its lock while it is made.
const BEGINNING: Duration = Duration::from_secs(1);
const NAP: Duration = Duration::from_millis(5);

impl Follower {
    /// The job that began last of those that write into `dir`; where none does, of those that died there.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed.
    pub fn find(dir: &Path) -> Result<Option<Follower>, Error> {
        let begun = Instant::now();
        loop {
            match Self::seen(dir)? {
                Seen::Beginning if begun.elapsed() < BEGINNING => thread::sleep(NAP),
                Seen::Beginning => return Ok(None),
                Seen::Found(found) => return Ok(found),
            }
        }
    }

    fn seen(dir: &Path) -> Result<Seen, Error> {
        let mut folders = work::list(dir)?;
        folders.sort_by_key(|folder| began(folder));
        let (mut found, mut is_beginning) = (None, false);
        for folder in folders.into_iter().rev() {
            // One that is just being made has no lock yet, and one that has just ended none any more.
            let Ok(lock) = disk::open(&folder.join(LOCK_NAME)) else {
                is_beginning = true;
                continue;
            };
            let dir = dir.to_owned();
            let follower = Follower { dir, folder, lock };
            if follower.look() != Sight::Died {
                return Ok(Seen::Found(Some(follower)));
            }
            found = found.or(Some(follower));
        }
        Ok(match is_beginning {
            true if found.is_none() => Seen::Beginning,
            _ => Seen::Found(found),
        })
    }

    /// The working folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Looks at the job.
    pub fn look(&self) -> Sight {
        if let Ok(last) = Progress::read_open(&self.lock) {
            return Sight::Told(last);
        }
        if self.is_dead() {
            // It may have ended since the first look.
            return Progress::read_open(&self.lock).map_or(Sight::Died, Sight::Told);
        }
        let told = Progress::read(&self.folder.join(PROGRESS_NAME));
        told.map_or(Sight::Nothing, Sight::Told)
    }

    /// Whether nobody holds the lock. Where that cannot be told the job is taken for alive.
    fn is_dead(&self) -> bool {
        // A job takes its lock while it holds the output folder's: so it never meets this one, held for a moment.
        let opened = fs::File::open(&self.dir).map(lock::attempt);
        let Ok(Attempt::Held(_dir_lock)) = opened else {
            return false;
        };
        match self.lock.try_lock() {
            Ok(()) => self.lock.unlock().is_ok(),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        }
    }
}

/// The time in a working folder's name.
fn began(folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_str()?;
    Some(name.rsplit_once('-')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::disk::Disk;
    use super::super::progress::JobState;
    use super::super::work::Work;
    use super::*;
    use crate::monitor::Begun;
    use crate::progress::{Cancel, Reporter, Silent, Stopped};

    fn work(dir: &Path) -> Work<'static> {
        Work::create(Disk::REAL, dir, &Cancel::new()).unwrap()
    }

    fn told(sight: Sight) -> Progress {
        match sight {
            Sight::Told(progress) => progress,
            other => panic!("{other:?}"),
        }
    }

    /// The lock comes a moment after the folder.
    #[test]
    fn a_job_that_is_just_beginning_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(".chunk-unet-1-0123456789abcdef");
        fs::create_dir(&folder).unwrap();
        let late = thread::spawn({
            let lock = folder.join(LOCK_NAME);
            move || {
                thread::sleep(10 * NAP);
                fs::write(lock, "").unwrap();
            }
        });
        let found = Follower::find(dir.path()).unwrap().unwrap();
        assert_eq!(found.folder(), folder);
        late.join().unwrap();
        fs::remove_file(folder.join(LOCK_NAME)).unwrap();
        assert!(Follower::find(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_job_is_followed_to_its_end_beyond_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Follower::find(dir.path()).unwrap().is_none());
        let ends = [
            (None, JobState::Done),
            (Some(Stopped::Cancelled), JobState::Interrupted),
            (Some(Stopped::Failed("x")), JobState::Failed),
        ];
        for (why, expected) in ends {
            let work = work(dir.path());
            let follower = Follower::find(dir.path()).unwrap().unwrap();
            assert_eq!(follower.look(), Sight::Nothing);
            let begun = Begun::planned(Instant::now(), std::iter::empty());
            begun.monitor(&Silent, false, |job| {
                job.on_working_folder(&work.path);
                job.on_start(10);
                job.on_stage("writing chunk 1/1");
                let running = told(follower.look());
                assert_eq!(
                    (running.state, running.stage.as_str()),
                    (JobState::Running, "writing chunk 1/1")
                );
                why.map_or_else(|| job.on_done(), |why| job.on_stopped(why));
            });
            drop(work);
            assert!(!follower.folder().exists());
            assert_eq!(told(follower.look()).state, expected);
        }
    }

    #[test]
    fn a_job_that_died_is_known_and_one_that_runs_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let dead = dir.path().join(".chunk-unet-9-ffffffffffffffff");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(LOCK_NAME), "").unwrap();
        let follower = Follower::find(dir.path()).unwrap().unwrap();
        assert_eq!((follower.look(), follower.folder()), (Sight::Died, &*dead));
        let alive = work(dir.path());
        let follower = Follower::find(dir.path()).unwrap().unwrap();
        assert_eq!(follower.folder(), alive.path);
        fs::write(dead.join(LOCK_NAME), "{\"state\": 1}").unwrap();
        drop(alive);
        let follower = Follower::find(dir.path()).unwrap().unwrap();
        assert_eq!(
            follower.look(),
            Sight::Died,
            "what is in a lock is not believed"
        );
    }
}
