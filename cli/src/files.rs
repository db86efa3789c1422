//! Which files are meant, and where their transcripts go.

use std::collections::HashMap;
use std::hash::Hasher;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use crate::args::Format;
use crate::error::Error;

/// A file, and where its transcript goes: to the output if nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub source: PathBuf,
    pub target: Option<PathBuf>,
}

impl Format {
    /// How a file of this form ends.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Srt => "srt",
            Self::Vtt => "vtt",
            Self::Json => "json",
        }
    }
}

/// The files of names and patterns, each once, in order.
///
/// # Errors
/// When a name is no file, or a pattern is malformed or fits none.
pub fn expand(names: &[String]) -> Result<Vec<PathBuf>, Error> {
    let mut files: Vec<PathBuf> = Vec::new();
    for name in names {
        let path = PathBuf::from(name);
        let found = if path.is_file() || !name.contains(['*', '?', '[']) {
            // A file that is not there is known now, not after an hour of others.
            std::fs::metadata(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            vec![path]
        } else {
            let paths = glob::glob(name).map_err(|error| Error::Usage(format!("{name}: {error}")))?;
            paths.filter_map(Result::ok).filter(|path| path.is_file()).collect()
        };
        if found.is_empty() {
            return Err(Error::Usage(format!("{name}: no such file")));
        }
        if let Some(folder) = found.iter().find(|path| path.is_dir()) {
            return Err(Error::Usage(format!(
                "{} is a folder; give its files, such as '{0}/*'",
                folder.display()
            )));
        }
        found.into_iter().for_each(|path| {
            if !files.contains(&path) {
                files.push(path);
            }
        });
    }
    Ok(files)
}

/// Where the transcript of each file goes: `DIR/NAME.FORMAT`, and `DIR/NAME.ENDING.FORMAT` where two have the same name.
///
/// # Errors
/// When several files would be printed, or two would be written into one.
pub fn tasks(files: Vec<PathBuf>, out: Option<&Path>, format: Format) -> Result<Vec<Task>, Error> {
    let Some(out) = out else {
        if files.len() > 1 {
            return Err(Error::Usage(format!(
                "{} files: --out DIR says where their transcripts go",
                files.len()
            )));
        }
        return Ok(files.into_iter().map(|source| Task { source, target: None }).collect());
    };
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_os_string();
    let mut count: HashMap<_, usize> = HashMap::new();
    files.iter().for_each(|path| *count.entry(stem(path)).or_default() += 1);
    let mut taken: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut tasks = Vec::new();
    for source in files {
        let shared = count.get(&stem(&source)).is_some_and(|count| *count > 1);
        let mut name =
            if shared { source.file_name().unwrap_or_default().to_os_string() } else { stem(&source) };
        name.push(format!(".{}", format.ending()));
        let target = out.join(name);
        if let Some(other) = taken.insert(target.clone(), source.clone()) {
            let (one, two) = (other.display(), source.display());
            return Err(Error::Usage(format!(
                "{one} and {two} would both be written into {}",
                target.display()
            )));
        }
        tasks.push(Task { source, target: Some(target) });
    }
    Ok(tasks)
}

/// Writes a transcript in one step, so that an interruption leaves none or all of it.
///
/// # Errors
/// When it cannot be written.
pub fn write(target: &Path, text: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { path: target.to_owned(), source };
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    let unfinished = target.with_file_name(name);
    std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, target)).map_err(failed)
}

/// Prints a transcript, with an end of line.
///
/// # Errors
/// When the output is closed.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// A name for a file's content together with what is asked of it.
///
/// # Errors
/// When the file cannot be read.
pub fn fingerprint(path: &Path, asked: &[(&str, String)]) -> Result<String, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut hasher = XxHash3_64::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block).map_err(failed)? {
            0 => break,
            count => hasher.write(&block[..count]),
        }
    }
    asked.iter().for_each(|(name, value)| hasher.write(format!("\n{name}={value}").as_bytes()));
    Ok(format!("speechstack-{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_give_each_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        ["b.wav", "a.wav", "c.txt"].iter().for_each(|name| std::fs::write(at(name), "x").unwrap());
        let text = |name: &str| at(name).display().to_string();
        assert_eq!(expand(&[text("b.wav"), text("*.wav")]).unwrap(), [at("b.wav"), at("a.wav")]);
        assert!(matches!(expand(&[text("none.wav")]), Err(Error::File { .. })));
        assert!(matches!(expand(&[text("*.mp3")]), Err(Error::Usage(_))));
        let refused = expand(&[folder.path().display().to_string()]).unwrap_err();
        assert!(refused.to_string().contains("is a folder"), "{refused}");
    }

    #[test]
    fn each_file_has_a_transcript_of_its_own() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let targets = |names: &[&str]| -> Result<Vec<String>, Error> {
            let tasks = tasks(files(names), Some(Path::new("out")), Format::Srt)?;
            Ok(tasks.iter().map(|task| task.target.as_ref().unwrap().display().to_string()).collect())
        };
        assert_eq!(targets(&["x/a.wav", "b.mp3"]).unwrap(), ["out/a.srt", "out/b.srt"]);
        assert_eq!(targets(&["a.wav", "a.mp3"]).unwrap(), ["out/a.wav.srt", "out/a.mp3.srt"]);
        assert!(targets(&["x/a.wav", "y/a.wav"]).is_err());
        assert!(tasks(files(&["a.wav", "b.wav"]), None, Format::Txt).is_err());
        assert_eq!(tasks(files(&["a.wav"]), None, Format::Txt).unwrap()[0].target, None);
    }

    #[test]
    fn a_fingerprint_is_of_content_and_of_what_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let of = |content: &str, format: &str| {
            std::fs::write(&path, content).unwrap();
            fingerprint(&path, &[("format", format.to_owned())]).unwrap()
        };
        assert_eq!(of("x", "srt"), of("x", "srt"));
        assert_ne!(of("x", "srt"), of("y", "srt"));
        assert_ne!(of("x", "srt"), of("x", "vtt"));
    }
}
