//! Short recordings of voices, kept by name: of speakers who are to be recognised, of voices that are to be imitated, of consents
//! to that.
//!
//! A folder has two files for each: its record as JSON and its audio. Several gateways may share the folder. All of it blocks.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest name, characters.
pub const MAX_NAME: usize = 64;

/// What a recording is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// To recognise the speaker.
    Speaker,
    /// To speak like it.
    Voice,
    /// To prove that the one who speaks consents to that.
    Consent,
}

impl Kind {
    /// What ids begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Speaker => "spk",
            Self::Voice => "voice",
            Self::Consent => "cons",
        }
    }

    /// As messages name it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Speaker => "speaker",
            Self::Voice => "voice",
            Self::Consent => "voice consent",
        }
    }
}

/// What is known of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clip {
    /// Unique, and not to be guessed.
    pub id: String,
    /// What it is for.
    pub kind: Kind,
    /// Unique for its owner and kind.
    pub name: String,
    /// Digest of who made it, by whom alone it is seen.
    pub owner: String,
    /// Unix time, seconds.
    pub created: u64,
    /// How long it plays.
    pub seconds: f64,
    /// Samples per second of the audio.
    pub rate: u32,
    /// What is said in it.
    pub transcript: Option<String>,
    /// The consent of the one who speaks, as it was given, or the id of a recording of it.
    pub consent: Option<String>,
    /// The language of a consent, as it was named.
    #[serde(default)]
    pub language: Option<String>,
}

impl Clip {
    /// One that begins to be.
    pub fn new(kind: Kind, name: String, owner: String, seconds: f64, rate: u32) -> Self {
        let id = format!("{}_{}", kind.prefix(), Uuid::now_v7().simple());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (transcript, consent, language) = (None, None, None);
        Self { id, kind, name, owner, created, seconds, rate, transcript, consent, language }
    }
}

/// Why a recording is not kept or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a file of it.
    #[error("unable to use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The owner has one of that name.
    #[error("there is one of that name")]
    Taken,
    /// There are as many as may be kept.
    #[error("there are {max} recordings, which is the limit")]
    Full {
        /// The limit.
        max: usize,
    },
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Clips {
    dir: PathBuf,
    max: usize,
}

impl Clips {
    /// Opens or makes a folder that keeps `max` recordings.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn open(dir: &Path, max: usize) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        Ok(Self { dir: dir.to_owned(), max })
    }

    /// Keeps a recording, on disk when this returns.
    ///
    /// # Errors
    /// [`Error`].
    pub fn add(&self, clip: &Clip, audio: &[u8]) -> Result<(), Error> {
        let all = self.all()?;
        if all.len() >= self.max {
            return Err(Error::Full { max: self.max });
        }
        is_free(&all, clip)?;
        // The record comes last: a recording without one is not seen.
        self.write(&self.audio_of(clip), audio)?;
        self.record(clip)
    }

    /// Gives the recording of that name or id another name. Returns it, if there is one.
    ///
    /// # Errors
    /// [`Error::Taken`]; [`Error::File`].
    pub fn rename(&self, kind: Kind, owner: &str, name: &str, new: String) -> Result<Option<Clip>, Error> {
        let Some(found) = self.find(kind, owner, name)? else { return Ok(None) };
        let clip = Clip { name: new, ..found };
        is_free(&self.all()?, &clip)?;
        self.record(&clip)?;
        Ok(Some(clip))
    }

    /// The recordings of a kind that an owner has, the oldest first.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn list(&self, kind: Kind, owner: &str) -> Result<Vec<Clip>, Error> {
        let mut all = self.all()?;
        all.retain(|clip| clip.kind == kind && clip.owner == owner);
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The recording of that name or id.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn find(&self, kind: Kind, owner: &str, name: &str) -> Result<Option<Clip>, Error> {
        Ok(self.list(kind, owner)?.into_iter().find(|clip| clip.name == name || clip.id == name))
    }

    /// The audio of a recording, as it was given.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn audio(&self, clip: &Clip) -> Result<Vec<u8>, Error> {
        let path = self.audio_of(clip);
        fs::read(&path).map_err(at(&path))
    }

    /// Removes the recording of that name or id. Returns it, if there was one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn remove(&self, kind: Kind, owner: &str, name: &str) -> Result<Option<Clip>, Error> {
        let Some(clip) = self.find(kind, owner, name)? else { return Ok(None) };
        for path in [self.dir.join(format!("{}.json", clip.id)), self.audio_of(&clip)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                _ => {}
            }
        }
        Ok(Some(clip))
    }

    fn record(&self, clip: &Clip) -> Result<(), Error> {
        let record = serde_json::to_vec(clip).unwrap_or_default();
        self.write(&self.dir.join(format!("{}.json", clip.id)), &record)
    }

    fn audio_of(&self, clip: &Clip) -> PathBuf {
        self.dir.join(format!("{}.audio", clip.id))
    }

    /// Every record that can be read; what is no record is left alone.
    fn all(&self) -> Result<Vec<Clip>, Error> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at(&self.dir))? {
            let path = entry.map_err(at(&self.dir))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path) {
                Ok(bytes) => all.extend(serde_json::from_slice::<Clip>(&bytes).ok()),
                // Another request removes it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path)(error)),
            }
        }
        Ok(all)
    }

    /// Writes a file whole or not at all, readable by the gateway's user alone.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).map_err(at(path))?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(at(path))?;
        file.persist(path).map_err(|error| at(path)(error.error))?;
        Ok(())
    }
}

/// Whether no other recording of the owner has the clip's name.
fn is_free(all: &[Clip], clip: &Clip) -> Result<(), Error> {
    let is_taken = all.iter().any(|known| {
        known.kind == clip.kind && known.owner == clip.owner && known.name == clip.name && known.id != clip.id
    });
    if is_taken { Err(Error::Taken) } else { Ok(()) }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(name: &str, owner: &str) -> Clip {
        Clip::new(Kind::Speaker, name.into(), owner.into(), 3.0, 16_000)
    }

    #[test]
    fn a_recording_is_found_by_name_and_id_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let clips = Clips::open(dir.path(), 10).unwrap();
        let ada = clip("Ada", "one");
        clips.add(&ada, b"sound").unwrap();
        clips.add(&clip("Ada", "other"), b"else").unwrap();
        assert!(matches!(clips.add(&clip("Ada", "one"), b""), Err(Error::Taken)));
        for name in ["Ada", &ada.id] {
            assert_eq!(clips.find(Kind::Speaker, "one", name).unwrap().as_ref(), Some(&ada));
        }
        assert_eq!(clips.audio(&ada).unwrap(), b"sound");
        assert_eq!(clips.find(Kind::Voice, "one", "Ada").unwrap(), None);
        assert_eq!(clips.find(Kind::Speaker, "third", &ada.id).unwrap(), None);
        assert_eq!(clips.remove(Kind::Speaker, "third", &ada.id).unwrap(), None);
        assert_eq!(clips.remove(Kind::Speaker, "one", "Ada").unwrap(), Some(ada));
        assert_eq!(clips.list(Kind::Speaker, "one").unwrap(), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_recording_gets_another_name_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let clips = Clips::open(dir.path(), 10).unwrap();
        let ada = clip("Ada", "one");
        clips.add(&ada, b"sound").unwrap();
        clips.add(&clip("Ben", "one"), b"").unwrap();
        let rename = |owner: &str, to: &str| clips.rename(Kind::Speaker, owner, &ada.id, to.into());
        assert!(matches!(rename("one", "Ben"), Err(Error::Taken)));
        assert_eq!(rename("other", "Eve").unwrap(), None);
        let eve = rename("one", "Eve").unwrap().unwrap();
        assert_eq!((eve.name.as_str(), &eve.id), ("Eve", &ada.id));
        assert_eq!(clips.find(Kind::Speaker, "one", "Ada").unwrap(), None);
        assert_eq!(clips.audio(&eve).unwrap(), b"sound");
        assert_eq!(rename("one", "Eve").unwrap(), Some(eve), "its own name is no other's");
    }

    #[test]
    fn there_is_a_limit_and_foreign_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.json"), "{}").unwrap();
        let clips = Clips::open(dir.path(), 1).unwrap();
        clips.add(&clip("Ada", "one"), b"").unwrap();
        assert!(matches!(clips.add(&clip("Ben", "one"), b""), Err(Error::Full { max: 1 })));
        assert_eq!(clips.list(Kind::Speaker, "one").unwrap().len(), 1);
    }
}
